"""A device that trains between contacts: uploads, cut uploads, energy, and what survives a restart."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.device_agent.agent_harness import (
    LARGE,
    FakeWork,
    HandRadio,
    HurriedClock,
    Proxy,
    agent_config,
    agent_events,
    agent_log,
    go,
    large_config,
    proxied,
    until,
)
from tests.server.harness import LAYOUT, RUN, Running, initial_vector, make_config, newest, running

from fadelab_agent.agent import Agent
from fadelab_agent.config import ComputeConfig
from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.contact_history import ContactHistory, HistoryFile
from fadelab_agent.contact_loop import ContactLoop
from fadelab_agent.downlink import Downlink
from fadelab_agent.error_memory import ErrorMemory, Memory, NoMemory
from fadelab_agent.keepsake import Keepsake
from fadelab_agent.membership import Membership
from fadelab_agent.policy import Dense, Observation, Plan, Policy
from fadelab_agent.spool import Owner
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_agent.uplink import Uplink
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.wire import channel_options

AFL = {"kind": "afl", "devices": 1}
TERMS = DeviceTerms(
    run_id=RUN,
    seed=0,
    device=0,
    max_payload_bytes=512,
    uplink_power_w=0.2,
    downlink_power_w=1.0,
    compute=ComputeConfig(),
    gives_up=True,
)
OWNER = Owner(
    run_id=RUN, device=0, task="digits", dimension=LARGE, layout_hash=LAYOUT, memory="ErrorMemory"
)


class Count:
    """Something that goes on, and can be waited for; told of it from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Condition()
        self._told: set[asyncio.Task[None]] = set()
        self.number = 0

    def one_more(self) -> None:
        self._loop.call_soon_threadsafe(self._note)

    def _note(self) -> None:
        self.number += 1
        telling = asyncio.ensure_future(self._tell())
        self._told.add(telling)
        telling.add_done_callback(self._told.discard)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def reaches(self, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.number >= number)


class CountedHistory(HistoryFile):
    """Tells of each contact that is over: its figures are kept last of all."""

    def __init__(self, path: Path, uses: Count) -> None:
        super().__init__(path, OWNER, sync=False)
        self._uses = uses

    def write(self, history: ContactHistory) -> str | None:
        problem = super().write(history)
        self._uses.one_more()
        return problem


@dataclass
class Scene:
    """A device, its server, and what lies between them."""

    server: Running
    proxy: Proxy
    radio: HandRadio
    work: FakeWork
    trainings: Count
    """That have begun."""
    uses: Count
    """Of contacts, that are over."""

    def leave(self) -> None:
        """End the contact."""
        self.radio.opened.clear()
        self.radio.closed.set()

    def enter(self) -> None:
        """Begin the next contact; what is held back is lost."""
        self.proxy.cut()
        self.radio.closed.clear()
        self.radio.opened.set()

    async def version(self, number: int) -> NDArray[np.float32]:
        """Return a version as soon as it is published."""
        await until(self.server, lambda: self.shown() >= number)
        held = self.server.federation.tasks[0].store.get(number)
        assert held is not None
        return held.vector - initial_vector(LARGE)

    def shown(self) -> int:
        return self.server.federation.tasks[0].store.shown.number

    async def cut_the_first_upload(self) -> None:
        """End the contact in the middle of an upload; begin another when the device has trained."""
        await self.proxy.held.wait()
        self.leave()
        await self.trainings.reaches(2)
        self.enter()


class Planned:
    """Does what a test says, and remembers what it was told."""

    def __init__(self, make: Callable[[Observation], Plan]) -> None:
        self._make = make
        self.seen: list[Observation] = []

    def decide(self, observation: Observation) -> Plan:
        self.seen.append(observation)
        return self._make(observation)


@asynccontextmanager
async def scene(
    folder: Path,
    *,
    policy: Policy | None = None,
    memory: Memory | None = None,
    terms: DeviceTerms = TERMS,
    hold_up: int | None = None,
    **settings: Any,
) -> AsyncIterator[Scene]:
    contact = ContactConfig.model_validate({"max_local_steps": 1} | settings.pop("contact", {}))
    config = large_config(folder, **({"aggregation": AFL} | settings))
    trainings, uses = Count(), Count()
    clock, radio = HurriedClock(), HandRadio()
    work = FakeWork(LARGE, before_training=lambda _: trainings.one_more())
    async with (
        running(config) as server,
        proxied(server, hold_up=hold_up) as (proxy, channel),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=channel_options()) as direct,
    ):
        with agent_log(folder) as log:
            offers = [
                pb.TaskOffer(
                    name="digits", dimension=LARGE, layout_hash=LAYOUT, samples=work.samples
                )
            ]
            member = Membership(direct, run_id=RUN, device=0, offers=offers, clock=clock, log=log)
            await member.join()
            parts = TaskParts(
                work=work,
                policy=policy or Dense(),
                memory=memory or ErrorMemory(LARGE),
                keepsake=Keepsake(None, task="digits", clock=clock, log=log),
                membership=member,
                radio=radio,
                uplink=Uplink(channel, radio=radio, clock=clock, log=log, stall_s=3000),
                downlink=Downlink(channel, radio=radio, clock=clock, log=log, stall_s=3000),
                clock=clock,
                log=log,
                compute_lock=asyncio.Lock(),
            )
            history = CountedHistory(folder / "history.json", uses)
            loop = ContactLoop(terms, contact, parts, history)
            jobs = [asyncio.create_task(member.follow()), asyncio.create_task(loop.run())]
            server.federation.start(server.federation.clock.now_s())
            try:
                yield Scene(server, proxy, radio, work, trainings, uses)
            finally:
                for job in jobs:
                    job.cancel()
                ended = await asyncio.gather(*jobs, return_exceptions=True)
                assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


def test_each_contact_brings_an_update_and_a_new_model(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            np.testing.assert_allclose(await here.version(1), here.work.delta(1), atol=1e-4)
            await here.trainings.reaches(2)
            # The contact lasts, but it is used once.
            assert here.shown() == 1
            here.leave()
            await asyncio.sleep(0)
            here.enter()
            total = here.work.delta(1) + here.work.delta(2)
            np.testing.assert_allclose(await here.version(2), total, atol=1e-4)
            # The second training began from the model that the first contact had brought.
            np.testing.assert_allclose(
                here.work.bases[1] - initial_vector(LARGE), here.work.delta(1), atol=1e-4
            )

    go(scenario)
    first, *_ = agent_events(tmp_path, "contact_used")
    assert (first["update_id"], first["acknowledged"], first["renewed"]) == (1, True, True)
    assert first["status"] == "UPLOAD_STATUS_COMPLETE"


def test_of_a_cut_upload_nothing_counts_and_nothing_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, hold_up=30_000) as here:
            await here.cut_the_first_upload()
            total = here.work.delta(1) + here.work.delta(2)
            np.testing.assert_allclose(await here.version(1), total, atol=1e-4)
            # Between the contacts training went on from its own result.
            np.testing.assert_allclose(
                here.work.bases[1] - here.work.bases[0], here.work.delta(1), atol=1e-5
            )

    go(scenario)
    statuses = [event["status"] for event in agent_events(tmp_path, "upload_ended")]
    assert statuses[0] == "UPLOAD_STATUS_DISCARDED"
    first, *_ = agent_events(tmp_path, "contact_used")
    assert first["acknowledged"] is False


def test_with_partial_credit_the_acknowledged_packets_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, hold_up=30_000, partial_updates="keep") as here:
            await here.cut_the_first_upload()
            part = await here.version(1)
            sent = np.abs(part) > 1e-4
            assert 0 < sent.sum() < np.count_nonzero(here.work.delta(1))
            np.testing.assert_allclose(part[sent], here.work.delta(1)[sent], atol=1e-4)
            total = here.work.delta(1) + here.work.delta(2)
            np.testing.assert_allclose(await here.version(2), total, atol=1e-4)

    go(scenario)


def test_without_memory_a_cut_update_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, hold_up=30_000, memory=NoMemory(LARGE)) as here:
            await here.cut_the_first_upload()
            np.testing.assert_allclose(await here.version(1), here.work.delta(2), atol=1e-4)

    go(scenario)


def test_an_upload_may_take_several_contacts(tmp_path: Path) -> None:
    async def scenario() -> None:
        terms = replace(TERMS, gives_up=False)
        async with scene(tmp_path, hold_up=30_000, terms=terms) as here:
            await here.cut_the_first_upload()
            np.testing.assert_allclose(await here.version(1), here.work.delta(1), atol=1e-4)
            await here.trainings.reaches(3)
            assert here.shown() == 1, "the rest of that contact was the download's"
            here.leave()
            await asyncio.sleep(0)
            here.enter()
            total = here.work.delta(1) + here.work.delta(2) + here.work.delta(3)
            np.testing.assert_allclose(await here.version(2), total, atol=1e-4)

    go(scenario)


def test_a_skipped_contact_brings_a_model_and_costs_nothing(tmp_path: Path) -> None:
    plans = iter([True, False])

    def make(observation: Observation) -> Plan:
        return replace(Dense().decide(observation), skip=next(plans, True))

    async def scenario() -> None:
        policy = Planned(make)
        async with scene(tmp_path, policy=policy) as here:
            await here.trainings.reaches(2)
            here.leave()
            await asyncio.sleep(0)
            here.enter()
            total = here.work.delta(1) + here.work.delta(2)
            np.testing.assert_allclose(await here.version(1), total, atol=1e-4)
            assert [seen.update_number for seen in policy.seen] == [1, 1]

    go(scenario)
    (skipped,) = agent_events(tmp_path, "contact_skipped")
    assert skipped["estimated_bits"] == 0
    first, *_ = agent_events(tmp_path, "contact_used")
    assert (first["update_id"], first["energy_j"], first["renewed"]) == (None, 0.0, True)


@pytest.mark.parametrize(
    ("refusal", "in_force_w"), [(None, 0.05), ("the links follow a timeline", 0.1)]
)
def test_the_planned_power_is_asked_for_and_given_back(
    tmp_path: Path, refusal: str | None, in_force_w: float
) -> None:
    policy = Planned(lambda observation: replace(Dense().decide(observation), power_w=0.05))

    async def scenario() -> None:
        async with scene(tmp_path, policy=policy, contact={"allowance_j": 0.01}) as here:
            here.radio.power_refusal = refusal
            here.radio.per_question_s = 0.5
            await here.version(1)
            await here.uses.reaches(1)
            assert here.radio.powers == [0.05, 0.2]

    go(scenario)
    used, *_ = agent_events(tmp_path, "contact_used")
    assert used["power_w"] == in_force_w
    assert used["airtime_s"] > 0
    assert used["energy_j"] == pytest.approx(in_force_w * used["airtime_s"])
    assert used["queue_j"] == pytest.approx(used["energy_j"] - 0.01)
    (contact,) = [seen.contact for seen in policy.seen][:1]
    assert contact is not None
    # HandRadio tells 10 dB at 0.1 W and 1 Gbit/s.
    assert contact.snr_per_w == pytest.approx(100)
    assert contact.bandwidth_hz * np.log2(1 + 10) == pytest.approx(1e9)
    assert contact.full_rate_bps == pytest.approx(contact.bandwidth_hz * np.log2(1 + 20))


def test_a_restarted_device_owes_what_it_owed_and_draws_new_batches(tmp_path: Path) -> None:
    kept = tmp_path / "history.json"

    async def life(owed_j: float) -> None:
        policy = Planned(Dense().decide)
        async with scene(
            tmp_path, policy=policy, contact={"allowance_j": 1e-6, "initial_queue_j": 0.25}
        ) as here:
            here.radio.per_question_s = 0.5
            await here.version(1)
            await here.uses.reaches(1)
            first = policy.seen[0].contact
            assert first is not None
            assert first.queue_j == pytest.approx(owed_j)

    go(lambda: life(0.25))
    before = json.loads(kept.read_text())
    assert before["queue_j"] > 0.25
    go(lambda: life(before["queue_j"]))
    after = json.loads(kept.read_text())
    assert after["contacts"] >= before["contacts"] + 1
    assert after["chunks"] > before["chunks"]


def test_a_contact_without_end_is_used_again_and_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        stop = {"duration_s": 3600, "max_versions": 4}
        async with running(make_config(tmp_path, aggregation=AFL, stop=stop)) as server:
            server.federation.start(server.federation.clock.now_s())
            work = FakeWork()
            config = agent_config(
                tmp_path,
                server.port,
                state_dir=tmp_path / "state",
                contact={"max_local_steps": 2, "again_after_steps": 2},
            )
            await Agent(config, [work], SystemClock()).run()
            # One training before the first use, two before each of the others.
            all_seven = sum(work.delta(number) for number in range(1, 8))
            np.testing.assert_allclose(newest(server), initial_vector() + all_seven, atol=1e-3)
        assert (tmp_path / "state" / "digits.contacts.json").exists()
        plans = agent_events(tmp_path, "plan")
        assert plans[0]["predicted_contact_s"] is None
        assert plans[0]["snr_per_w"] is None
        trained = agent_events(tmp_path, "trained")
        assert [event["steps"] for event in trained[:4]] == [1, 2, 2, 2]

    go(scenario)
