"""What a device learns from contacts, where it keeps that, and local steps that a contact interrupts."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.device_agent.agent_harness import (
    LARGE,
    FakeWork,
    HurriedClock,
    agent_config,
    agent_events,
    agent_log,
    go,
    large_config,
    proxied,
    until,
)
from tests.server.harness import LAYOUT, RUN, initial_vector, newest, running

from fadelab_agent.agent import Agent
from fadelab_agent.config import ComputeConfig
from fadelab_agent.contact_decision import link_terms
from fadelab_agent.contact_history import ContactHistory, HistoryFile
from fadelab_agent.downlink import Model
from fadelab_agent.local_run import LocalRun
from fadelab_agent.radio import LinkView
from fadelab_agent.spool import Owner
from fadelab_agent.terms import TaskParts
from fadelab_proto.clock import SystemClock
from fadelab_proto.transfer_timer import TransferTimer

OWNER = Owner(run_id=RUN, device=3, task="digits", dimension=12, layout_hash=LAYOUT, memory="M")


def history() -> ContactHistory:
    return ContactHistory.of(OWNER, 0.5)


def test_means_follow_what_happens() -> None:
    own = history()
    for predicted_s, norm in ((4.0, 2.0), (8.0, 9.0), (9.0, 1.0)):
        own.began(predicted_s, norm)
    assert (own.contacts, own.mean_contact_s, own.first_squared_norm) == (3, 7.0, 2.0)
    own.renewed(8, 4.0, 1000)
    assert (own.staleness, own.versions_per_s, own.download_bytes) == (8, 2.0, 1000)
    own.renewed(0, 4.0, 2000)
    assert (own.staleness, own.versions_per_s, own.download_bytes) == (6, 1.5, 1250)
    own.acknowledgement_s = 0.2
    own.acknowledged(airtime_s=3.0, explained_s=2.0)
    assert own.acknowledgement_s == pytest.approx(0.4)
    own.acknowledged(airtime_s=1.0, explained_s=2.0)
    assert own.acknowledgement_s == pytest.approx(0.3)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    problems: list[str] = []
    file = HistoryFile(tmp_path / "h.json", OWNER, sync=False)
    assert file.read(0.5, problems.append).queue_j == 0.5
    own = history()
    own.began(3.0, 1.0)
    own.queue_j = 0.75
    assert file.write(own) is None
    assert file.read(0.5, problems.append) == own
    assert problems == []
    assert HistoryFile(None, OWNER, sync=False).write(own) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "cannot be used"),
        ('{"queue_j": -1}', "cannot be used"),
        (
            ContactHistory.of(OWNER, 0.1).model_copy(update={"device": 4}).model_dump_json(),
            "another",
        ),
    ],
)
def test_what_is_of_no_use_is_not_used(tmp_path: Path, content: str, problem: str) -> None:
    problems: list[str] = []
    (tmp_path / "h.json").write_text(content)
    found = HistoryFile(tmp_path / "h.json", OWNER, sync=False).read(0.5, problems.append)
    assert found == history()
    assert problem in problems[0]


def test_a_folder_that_is_gone_is_told_of(tmp_path: Path) -> None:
    file = HistoryFile(tmp_path / "gone" / "h.json", OWNER, sync=False)
    assert "cannot write" in (file.write(history()) or "")


def view(**changes: Any) -> LinkView:
    settings: dict[str, Any] = {
        "is_open": True,
        "snr_db": 20.0,
        "rate_up_bps": 1e6,
        "rate_down_bps": 1e6,
        "predicted_contact_s": 8.0,
        "power_w": 0.1,
    }
    return LinkView(**settings | changes)


def test_a_prediction_ages_from_one_report_to_the_next() -> None:
    told = view(reported_s=100.0)
    assert [told.remaining_contact_s(now) for now in (100.0, 103.0, 120.0)] == [8.0, 5.0, 0.0]
    assert view().remaining_contact_s(1e9) == 8.0


def test_the_link_is_known_by_its_rate_and_snr() -> None:
    link = link_terms(view(), 0.2)
    assert link.snr_per_w == pytest.approx(1000)
    assert link.bandwidth_hz * np.log2(101) == pytest.approx(1e6)
    assert link.full_rate_bps == pytest.approx(link.bandwidth_hz * np.log2(201))


@pytest.mark.parametrize("changes", [{"snr_db": float("nan")}, {"power_w": 0.0}])
def test_without_snr_or_power_the_rate_is_all(changes: dict[str, float]) -> None:
    link = link_terms(view(**changes), 0.2)
    assert (link.bandwidth_hz, link.snr_per_w, link.full_rate_bps) == (0.0, None, 1e6)


class WaitingClock(HurriedClock):
    """Emulated computing lasts until a test says that it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.over, self.computing = asyncio.Event(), asyncio.Event()

    async def sleep_until(self, when_s: float) -> None:
        self.computing.set()
        await self.over.wait()


def test_steps_that_a_contact_interrupts_do_not_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, work = WaitingClock(), FakeWork(12)
        with agent_log(tmp_path) as log:
            local = LocalRun(_parts(work, clock, log), ComputeConfig(), chunks=4)
            local.begin(Model(7, np.ones(12, np.float32), 1, 48, TransferTimer(48)))
            contact: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            contact.set_result(None)
            first = asyncio.create_task(local.chunk(contact))
            await clock.computing.wait()
            assert not first.done(), "without it there would be nothing to send"
            clock.over.set()
            await first
            clock.over.clear()
            await local.chunk(contact)
            assert (local.untaken, local.chunks, work.trained) == (1, 6, [5, 6])
            np.testing.assert_array_equal(local.take(1), work.delta(5))
            np.testing.assert_array_equal(work.bases[1], 1 + work.delta(5))
            assert not local.take(2).any()

    go(scenario)
    (trained,) = agent_events(tmp_path, "trained")
    one = ComputeConfig()
    assert (trained["steps"], trained["base_version"]) == (1, 7)
    # What was computed in vain has cost its energy all the same.
    assert trained["emulated_s"] == pytest.approx(2 * one.cycles_per_sample / one.cpu_hz)


def _parts(work: FakeWork, clock: WaitingClock, log: Any) -> TaskParts:
    unused: Any = None
    return TaskParts(
        work=work,
        policy=unused,
        memory=unused,
        keepsake=unused,
        membership=unused,
        radio=unused,
        uplink=unused,
        downlink=unused,
        clock=clock,
        log=log,
        compute_lock=asyncio.Lock(),
    )


def test_a_new_process_finishes_the_update_and_trains_on(tmp_path: Path) -> None:
    stop = {"duration_s": 3600, "max_versions": 2}
    config = large_config(tmp_path, aggregation={"kind": "afl", "devices": 1}, stop=stop)
    settings = {
        "state_dir": tmp_path / "state",
        "state_sync": False,
        "contact": {"max_local_steps": 1, "again_after_steps": 1},
    }

    async def scenario() -> None:
        async with running(config) as server:
            server.federation.start(server.federation.clock.now_s())
            work = FakeWork(LARGE)
            async with proxied(server, hold_up=30_000) as (proxy, _):
                own = agent_config(tmp_path, server.port, **settings)
                own = own.model_copy(update={"server": proxy.address})
                killed = asyncio.create_task(Agent(own, [work], SystemClock()).run())
                await proxy.held.wait()
                killed.cancel()
                await asyncio.gather(killed, return_exceptions=True)
            heir = FakeWork(LARGE)
            own = agent_config(tmp_path, server.port, **settings)
            await Agent(own, [heir], SystemClock()).run()
            await until(server, lambda: server.federation.stop_reason is not None)
            assert (work.trained, heir.trained[:1]) == ([1], [2])
            both = work.delta(1) + heir.delta(2)
            np.testing.assert_allclose(newest(server), initial_vector(LARGE) + both, atol=1e-4)

    go(scenario)
    assert [event["update_id"] for event in agent_events(tmp_path, "update_resumed")] == [1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": {"kind": "mads"}}, "give contact"),
        ({"contact": {}, "innovation": {"kind": "laq"}}, "exclude each other"),
    ],
)
def test_loops_and_policies_that_do_not_suit_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        agent_config(tmp_path, 1, **changes)
