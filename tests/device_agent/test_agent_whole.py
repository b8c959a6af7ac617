"""Whole agents against a whole server: rounds, free training, error memory, endings."""

import asyncio
import signal
import sys
import threading
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.device_agent.agent_harness import (
    FakeWork,
    agent_config,
    agent_events,
    agent_log,
    go,
    resumed,
    until,
)
from tests.server.harness import (
    DIMENSION,
    FEDASYNC,
    FEDAVG,
    RUN,
    Running,
    initial_vector,
    logged,
    make_config,
    newest,
    running,
)

from fadelab_agent.agent import Agent
from fadelab_agent.compute import transmission_energy_j
from fadelab_agent.config import ComputeConfig
from fadelab_agent.downlink import Downlink
from fadelab_agent.error_memory import ErrorMemory
from fadelab_agent.keepsake import Keepsake
from fadelab_agent.membership import Membership, RefusedError
from fadelab_agent.policy import FixedCodec, FixedFraction, Policy
from fadelab_agent.radio import WiredRadio
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_agent.trainer_loop import TrainerLoop
from fadelab_agent.uplink import Uplink
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs.config import SignOnlyConfig
from fadelab_proto.substitutes import ConstantModulus
from fadelab_proto.wire import channel_options
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.task_state import TaskState


def agent(folder: Path, port: int, work: FakeWork, **changes: Any) -> Agent:
    return Agent(agent_config(folder, port, **changes), [work], SystemClock())


def begin(server: Running) -> None:
    server.federation.start(server.federation.clock.now_s())


def ends_at(versions: int) -> dict[str, Any]:
    return {"duration_s": 3600, "max_versions": versions}


async def all_present(server: Running, count: int) -> None:
    def present() -> bool:
        sessions = server.federation.sessions.alive(server.federation.clock.now_s())
        return sum(session.streams > 0 for session in sessions) == count

    await until(server, present)


def test_synchronous_rounds(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = make_config(tmp_path, aggregation=FEDAVG, stop=ends_at(3))
        async with running(config) as server:
            works = [FakeWork(), FakeWork()]
            agents = [
                asyncio.create_task(agent(tmp_path, server.port, work, device=device).run())
                for device, work in enumerate(works)
            ]
            await all_present(server, 2)
            begin(server)
            await asyncio.gather(*agents)
            expected = initial_vector()
            for number, work in zip(
                (1, 2, 3), zip(*(w.bases for w in works), strict=True), strict=True
            ):
                for base in work:
                    np.testing.assert_allclose(base, expected, atol=1e-4)
                expected = expected + works[0].delta(number)
            np.testing.assert_allclose(newest(server), expected, atol=1e-4)
            assert [work.trained for work in works] == [[1, 2, 3], [1, 2, 3]]
        for device in (0, 1):
            statuses = [e["status"] for e in agent_events(tmp_path, "upload_ended", device)]
            assert statuses[:2] == ["UPLOAD_STATUS_COMPLETE"] * 2
            (stopped,) = agent_events(tmp_path, "agent_stopped", device)
            assert stopped["reason"] == "3 versions are published"
            assert stopped["tcp_bytes_sent"] > 3 * 4 * DIMENSION
            assert stopped["private_mib"] > 0

    go(scenario)


def test_free_training(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, stop=ends_at(4))) as server:
            work = FakeWork()
            running_agent = asyncio.create_task(agent(tmp_path, server.port, work).run())
            await all_present(server, 1)
            begin(server)
            await running_agent
            expected = initial_vector()
            for number in (1, 2, 3, 4):
                expected = expected + np.float32(0.5) * work.delta(number)
            np.testing.assert_allclose(newest(server), expected, atol=1e-4)
            assert work.trained[:4] == [1, 2, 3, 4]
        uploads = logged(tmp_path, "upload_complete")
        assert [upload["update_id"] for upload in uploads] == [1, 2, 3, 4]
        assert [upload["staleness_versions"] for upload in uploads] == [0, 0, 0, 0]
        # On a wire the contact has no end, which the log has no number for.
        assert agent_events(tmp_path, "plan")[0]["predicted_contact_s"] is None
        (first, *_) = agent_events(tmp_path, "upload_ended")
        assert first["uplink_j"] == pytest.approx(
            transmission_energy_j(0.2, first["open_s"]), abs=1e-6
        )

    go(scenario)


def test_update_numbers_go_on_after_a_restart_of_the_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path, stop=ends_at(3))) as server:
            device = server.device()
            await device.join()
            await device.send(device.update(update_id=7))
            server.federation.sessions.alive(0)[0].ever_streamed = True
            work = FakeWork()
            begin(server)
            await agent(tmp_path, server.port, work).run()
            assert work.trained[:2] == [8, 9]

    go(scenario)


def test_a_restarted_server_gets_every_update_once(tmp_path: Path) -> None:
    """The server dies while the agent trains; the agent goes on with the one that follows."""
    config = make_config(tmp_path, stop=ends_at(5))
    training, go_on = threading.Event(), threading.Event()

    def before_training(number: int) -> None:
        if number == 3:
            training.set()
            go_on.wait(30)

    async def scenario() -> None:
        work = FakeWork(before_training=before_training)
        async with running(config) as server:
            port = server.port
            one = asyncio.create_task(agent(tmp_path, port, work).run())
            await all_present(server, 1)
            begin(server)
            await asyncio.to_thread(training.wait, 30)
        async with resumed(config, port) as again:
            go_on.set()
            await one
            assert again.federation.tasks[0].store.newest.number == 5
        taken = [upload["update_id"] for upload in logged(tmp_path, "upload_complete")]
        assert taken == [1, 2, 3, 4, 5]

    go(scenario)


@pytest.mark.parametrize(
    ("work", "changes", "reason"),
    [
        (FakeWork(name="mnist"), {}, "task 'mnist' is not trained here"),
        (FakeWork(dimension=7), {}, "has 7 parameters, the server's has 300"),
        (FakeWork(layout_hash=1), {}, "another layout"),
        (FakeWork(), {"device": 1}, "device 1 is already in the run"),
        (FakeWork(), {"device": 9}, "device 9 is not one of"),
    ],
)
def test_who_is_refused_ends_with_the_servers_sentence(
    tmp_path: Path, work: FakeWork, changes: dict[str, Any], reason: str
) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            await server.device(1).join()
            with pytest.raises(RefusedError, match=reason):
                await agent(tmp_path, server.port, work, **changes).run()

    go(scenario)


def test_an_agent_that_comes_too_late_ends_in_peace(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            server.federation.stop("over")
            work = FakeWork()
            await agent(tmp_path, server.port, work).run()
            assert work.trained == []
        (stopped,) = agent_events(tmp_path, "agent_stopped")
        assert stopped["reason"] == "the run is over"

    go(scenario)


def test_the_stop_ends_an_agent_that_is_computing(tmp_path: Path) -> None:
    """An hour of emulated computing is ahead when the run ends."""

    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            slow = ComputeConfig(cycles_per_sample=3600.0, cpu_hz=1.0)
            one = asyncio.create_task(agent(tmp_path, server.port, FakeWork(), compute=slow).run())
            await all_present(server, 1)
            begin(server)
            server.federation.stop("that is enough")
            await one
        (stopped,) = agent_events(tmp_path, "agent_stopped")
        assert stopped["reason"] == "that is enough"

    go(scenario)


def test_sent_and_memory_add_up_to_all_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Top-k keeps a third; the second update is refused as a whole."""
    arrived = np.zeros(DIMENSION, dtype=np.float32)
    combine, refuse = TaskState.combine, TaskState.refuse

    def note(self: TaskState, assembly: UpdateAssembly, read: Any) -> Any:
        for segment in assembly.segments(read):
            segment.add_to(arrived)
        return combine(self, assembly, read)

    def refuse_second(self: TaskState, **asked: int) -> str | None:
        upload = server_uploads.get((0, 0))
        second = upload is not None and upload.header.update_id == 2
        return "not this one" if second else refuse(self, **asked)

    server_uploads: dict[tuple[int, int], UpdateAssembly] = {}
    monkeypatch.setattr(TaskState, "combine", note)
    monkeypatch.setattr(TaskState, "refuse", refuse_second)

    async def scenario() -> None:
        nonlocal server_uploads
        async with running(make_config(tmp_path, aggregation=FEDASYNC, stop=ends_at(4))) as server:
            server_uploads = server.federation.uploads
            begin(server)
            work, memory = FakeWork(), ErrorMemory(DIMENSION)
            await train_until_the_stop(tmp_path, server.port, work, memory)
            ended = agent_events(tmp_path, "upload_ended")
            complete = [e["update_id"] for e in ended if e["status"] == "UPLOAD_STATUS_COMPLETE"]
            assert complete == [1, 3, 4, 5]
            assert ended[1]["status"] == "UPLOAD_STATUS_REFUSED_RULE"
            assert ended[1]["reason"] == "not this one"
            total = sum((work.delta(n) for n in work.trained), np.zeros(DIMENSION, np.float32))
            np.testing.assert_array_equal(arrived + memory.memory, total)
            assert np.count_nonzero(memory.memory) > 0

    go(scenario)


def test_signs_that_count_with_a_constant_are_settled_by_it(tmp_path: Path) -> None:
    constant = ConstantModulus(modulus=2)

    async def scenario() -> None:
        config = make_config(
            tmp_path, aggregation=FEDAVG, substitute=constant, stop=ends_at(4), devices=1
        )
        async with running(config) as server:
            begin(server)
            work, memory = FakeWork(), ErrorMemory(DIMENSION)
            policy = FixedCodec(SignOnlyConfig(kind="sign_only"))
            await train_until_the_stop(
                tmp_path, server.port, work, memory, policy=policy, substitute=constant
            )
            moved = newest(server) - initial_vector()
            np.testing.assert_allclose(moved, 2 * np.rint(moved / 2), atol=1e-5)
            assert moved.any()
            total = sum((work.delta(n) for n in work.trained), np.zeros(DIMENSION, np.float32))
            np.testing.assert_allclose(moved + memory.memory, total, atol=1e-4)

    go(scenario)


async def train_until_the_stop(
    folder: Path,
    port: int,
    work: FakeWork,
    memory: ErrorMemory,
    *,
    policy: Policy | None = None,
    substitute: ConstantModulus | None = None,
) -> None:
    """Run the loop itself, so that its memory can be looked at afterwards."""
    clock = SystemClock()
    radio = WiredRadio(clock, rate_up_bps=1e8, rate_down_bps=1e8)
    with agent_log(folder) as log:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=channel_options()
        ) as channel:
            offers = [
                pb.TaskOffer(
                    name=work.name,
                    dimension=work.dimension,
                    layout_hash=work.layout_hash,
                    samples=work.samples,
                )
            ]
            member = Membership(channel, run_id=RUN, device=0, offers=offers, clock=clock, log=log)
            await member.join()
            loop = TrainerLoop(
                DeviceTerms(
                    run_id=RUN,
                    seed=0,
                    device=0,
                    max_payload_bytes=512,
                    uplink_power_w=0.2,
                    downlink_power_w=1.0,
                    compute=ComputeConfig(),
                    substitute=substitute,
                ),
                TaskParts(
                    work=work,
                    policy=policy or FixedFraction(1 / 3),
                    memory=memory,
                    keepsake=Keepsake(None, task=work.name, clock=clock, log=log),
                    membership=member,
                    radio=radio,
                    uplink=Uplink(channel, radio=radio, clock=clock, log=log, stall_s=30),
                    downlink=Downlink(channel, radio=radio, clock=clock, log=log, stall_s=30),
                    clock=clock,
                    log=log,
                    compute_lock=asyncio.Lock(),
                ),
            )
            following = asyncio.create_task(member.follow())
            await loop.run()
            await following


_PROGRAM = """
import asyncio, sys
import numpy as np
from fadelab_agent.agent import run_agent
from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.work import Trained

class Work:
    name, dimension, layers, layout_hash, samples = "digits", 300, (300,), 77, 10

    def train(self, base, update_number):
        return Trained(np.ones(300, np.float32), steps=1, batch_size=1, loss=0.5)

asyncio.run(run_agent(AgentConfig.model_validate_json(sys.argv[1]), [Work()]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_agent_process_in_good_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            begin(server)
            config = agent_config(tmp_path, server.port)
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _PROGRAM, config.model_dump_json(), stderr=PIPE
            )
            try:
                await until(server, lambda: server.federation.tasks[0].updates >= 2)
                child.send_signal(number)
                _, errors = await child.communicate()
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
            assert (child.returncode, errors.decode()) == (0, "")
        assert len(agent_events(tmp_path, "agent_stopped")) == 1
        assert len(agent_events(tmp_path, "trained")) >= 2

    go(scenario)
