"""Who is waited for in a round: sessions come and go, the server crashes and resumes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.harness import (
    DIMENSION,
    FEDASYNC,
    FEDAVG,
    FakeClock,
    initial_vector,
    join_request,
    make_config,
    make_update,
    offer,
)

from fadelab_proto.events import EventLog, read_events
from fadelab_server.checkpoint import CheckpointError, load, save
from fadelab_server.config import FedAsyncConfig, ServerConfig
from fadelab_server.federation import Federation
from fadelab_server.sessions import JOIN_GRACE_S, Session


class Stage:
    """A federation without gRPC, driven step by step."""

    def __init__(self, config: ServerConfig, clock: FakeClock, log: EventLog) -> None:
        self.clock = clock
        self.federation = Federation(config, clock, log)

    def enter(self, device: int, **changes: Any) -> Session:
        session = self.federation.join(join_request(device, **changes))
        self.federation.stream_opened(session)
        return session

    async def take(self, session: Session, value: float) -> None:
        task = self.federation.tasks[0]
        base = task.store.newest
        number = task.last_update.get(session.device, 0) + 1
        update = make_update(
            np.full(DIMENSION, value, dtype=np.float32),
            device=session.device,
            update_id=number,
            base_version=base.number,
        )
        assembly = self.federation.open_upload(update.header, session, base)
        for packet in update.packets:
            self.federation.add_packet(assembly, packet)
        await self.federation.finish_upload(assembly)

    async def end(self) -> None:
        """Let what is durable be seen, as a server does that goes on a little while."""
        await self.federation.make_durable()
        await asyncio.sleep(0)
        await self.federation.keeper.log.close()

    def version(self, task: int = 0) -> int:
        return self.federation.tasks[task].store.newest.number

    async def pass_time(self, by_s: float) -> None:
        self.clock.advance(by_s)
        for _ in range(5):
            await asyncio.sleep(0)


Scenario = Callable[[Stage], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    def run(scenario: Scenario, **changes: Any) -> None:
        config = make_config(tmp_path, **{"aggregation": FEDAVG, "devices": 3} | changes)

        async def body() -> None:
            clock = FakeClock()
            with EventLog(config.events_dir, "server", "0", clock) as log:
                stage = Stage(config, clock, log)
                await scenario(stage)
                await stage.end()

        asyncio.run(body())

    return run


def test_a_round_ends_when_the_last_one_missing_leaves(play: Play, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        first, second, third = (stage.enter(device) for device in range(3))
        stage.federation.start(100.0)
        await stage.take(first, 2.0)
        await stage.take(second, 4.0)
        assert stage.version() == 0
        stage.federation.stream_closed(third)
        assert stage.version() == 1
        vector = stage.federation.tasks[0].store.newest.vector
        np.testing.assert_allclose(vector, initial_vector() + 3, rtol=1e-6)

    play(scenario)
    events = [event["event"] for event in read_events(tmp_path / "events" / "server-0.jsonl")]
    assert events[-2:] == ["device_left", "version_published"]


def test_a_device_that_comes_back_is_waited_for_again(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        sessions = [stage.enter(device) for device in range(3)]
        stage.federation.start(100.0)
        stage.federation.stream_closed(sessions[2])
        stage.federation.stream_opened(sessions[2])
        await stage.take(sessions[0], 1.0)
        await stage.take(sessions[1], 1.0)
        assert stage.version() == 0
        await stage.take(sessions[2], 1.0)
        assert stage.version() == 1

    play(scenario)


def test_an_agent_that_joins_but_never_listens_delays_a_round_by_the_grace_only(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        first = stage.enter(0)
        stage.federation.join(join_request(1))
        stage.federation.start(100.0)
        await stage.take(first, 1.0)
        await stage.pass_time(JOIN_GRACE_S - 1)
        assert stage.version() == 0
        await stage.pass_time(1)
        assert stage.version() == 1

    play(scenario)


def test_a_round_of_one_task_does_not_wait_for_devices_of_another(
    play: Play, tmp_path: Path
) -> None:
    names = ("digits", "other")
    tasks = [make_config(tmp_path).tasks[0].model_dump() | {"name": name} for name in names]

    async def scenario(stage: Stage) -> None:
        first = stage.enter(0)
        stage.enter(1, tasks=[offer(name="other")])
        stage.federation.start(100.0)
        await stage.take(first, 1.0)
        assert [stage.version(0), stage.version(1)] == [1, 0]

    play(scenario, tasks=tasks)


def test_joining_again_does_not_log_that_the_device_left(play: Play, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        old = stage.enter(0)
        stage.enter(0)
        stage.federation.stream_closed(old)

    play(scenario)
    events = [event["event"] for event in read_events(tmp_path / "events" / "server-0.jsonl")]
    assert "device_left" not in events


def half_a_round(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.federation.begin()
        sessions = [stage.enter(device) for device in range(3)]
        stage.federation.start(100.0)
        for session in sessions:
            await stage.take(session, 1.0)
        await stage.take(sessions[0], 6.0)
        assert stage.version() == 1

    play(scenario)


def test_a_half_finished_round_goes_on_after_a_crash(play: Play, tmp_path: Path) -> None:
    async def resumed(stage: Stage) -> None:
        stage.federation.resume(tmp_path / "checkpoint")
        assert stage.federation.start_mono_s == 100.0
        assert stage.version() == 1, "the round is still open although nobody has returned yet"
        task = stage.federation.tasks[0]
        assert (task.updates, task.last_update) == (4, {0: 2, 1: 1, 2: 1})
        assert task.refuse(device=0, base_version=1) is not None
        assert task.refuse(device=1, base_version=1) is None
        sessions = [stage.enter(device) for device in range(3)]
        await stage.take(sessions[1], 3.0)
        assert stage.version() == 1
        await stage.take(sessions[2], 0.0)
        assert stage.version() == 2
        np.testing.assert_allclose(task.store.newest.vector, initial_vector() + 1 + 3, rtol=1e-6)

    half_a_round(play)
    play(resumed)


def test_devices_that_do_not_return_are_waited_for_during_the_grace(
    play: Play, tmp_path: Path
) -> None:
    async def resumed(stage: Stage) -> None:
        stage.federation.resume(tmp_path / "checkpoint")
        stage.enter(0)
        await stage.pass_time(JOIN_GRACE_S - 1)
        assert stage.version() == 1
        await stage.pass_time(1)
        assert stage.version() == 2

    half_a_round(play)
    play(resumed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_id": 1}, "is of run"),
        ({"name": "other"}, "the checkpoint's name is digits"),
        ({"layout_hash": 1}, "the checkpoint's layout_hash is 77"),
        ({"aggregation": FedAsyncConfig()}, "rule is FedAvg, the experiment's is FedAsync"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    play: Play, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    async def resumed(stage: Stage) -> None:
        with pytest.raises(CheckpointError, match=reason):
            stage.federation.resume(tmp_path / "checkpoint")

    half_a_round(play)
    task = make_config(tmp_path).tasks[0].model_dump()
    settings = {key: value for key, value in changes.items() if key not in task}
    play(resumed, tasks=[task | {k: v for k, v in changes.items() if k in task}], **settings)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"tasks": []}, "the experiment's 1 tasks"),
        ({"tasks": None}, "the experiment's 1 tasks"),
        ({"updates": "7"}, "'7' where a number belongs"),
        ({"versions": []}, "which versions"),
        ({"last_update": []}, "which devices were in the run"),
        ({"roster": ["x"]}, "'x' where a number belongs"),
        ({"vector": np.zeros(3, dtype=np.float32)}, r"shape \(3,\)"),
        ({"vector": None}, "lacks a part or holds a wrong one: '?vector"),
    ],
)
def test_a_checkpoint_with_a_wrong_part_is_refused(
    play: Play, tmp_path: Path, part: dict[str, Any], reason: str
) -> None:
    half_a_round(play)
    meta: Any
    meta, arrays = load(tmp_path / "checkpoint")
    for key, value in part.items():
        if key == "tasks":
            meta[key] = value
        elif key != "vector":
            meta["tasks"][0][key] = value
        elif value is None:
            del arrays["0.vector.0"]
        else:
            arrays["0.vector.0"] = value
    save(tmp_path / "checkpoint", meta, arrays)

    async def resumed(stage: Stage) -> None:
        with pytest.raises(CheckpointError, match=reason):
            stage.federation.resume(tmp_path / "checkpoint")

    play(resumed)


def test_a_run_that_had_reached_its_last_version_stops_when_it_resumes(
    play: Play, tmp_path: Path
) -> None:
    async def first(stage: Stage) -> None:
        await stage.federation.begin()
        session = stage.enter(0)
        stage.federation.start(100.0)
        await stage.take(session, 1.0)

    async def resumed(stage: Stage) -> None:
        stage.federation.resume(tmp_path / "checkpoint")
        assert stage.federation.stop_reason == "1 versions are published"

    settings = {"aggregation": FEDASYNC, "stop": {"duration_s": 60, "max_versions": 1}}
    play(first, **settings)
    play(resumed, **settings)
