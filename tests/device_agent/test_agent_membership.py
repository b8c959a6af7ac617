"""Joining, listening, joining again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.device_agent.agent_harness import (
    HurriedClock,
    agent_events,
    agent_log,
    go,
    resumed,
    until,
)
from tests.server.harness import (
    FEDAVG,
    RUN,
    Running,
    initial_vector,
    make_config,
    offer,
    running,
)

from fadelab_agent.membership import Membership, RefusedError
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.wire import channel_options


@asynccontextmanager
async def membership(folder: Path, port: int, **changes: Any) -> AsyncIterator[Membership]:
    settings: dict[str, Any] = {"run_id": RUN, "device": 0, "offers": [offer()]}
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        with agent_log(folder) as log:
            yield Membership(channel, clock=HurriedClock(), log=log, **(settings | changes))


@asynccontextmanager
async def following(member: Membership) -> AsyncIterator["asyncio.Task[None]"]:
    await member.join()
    task = asyncio.create_task(member.follow())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def begin(server: Running) -> None:
    server.federation.start(server.federation.clock.now_s())


def publish(server: Running) -> None:
    store = server.federation.tasks[0].store
    store.show(store.publish(initial_vector(), 0.0))
    server.federation.orders.notify()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_id": 1}, "the agent belongs to run 00000001, this is run 0fade1ab"),
        ({"device": 2}, r"device 2 is not one of 0\.\.1"),
        ({"offers": []}, "the agent offers no task"),
        ({"offers": [offer(name="mnist")]}, "task 'mnist' is not trained here; known: digits"),
        ({"offers": [offer(dimension=5)]}, "has 5 parameters, the server's has 300"),
        ({"offers": [offer(layout_hash=5)]}, "but another layout"),
        ({"offers": [offer(samples=0)]}, "no training sample for 'digits'"),
    ],
)
def test_a_refused_join_gives_the_servers_sentence(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    async def scenario() -> None:
        async with (
            running(make_config(tmp_path)) as server,
            membership(tmp_path, server.port, **changes) as member,
        ):
            with pytest.raises(RefusedError, match=reason):
                await member.join()

    go(scenario)


def test_a_second_agent_with_the_same_number_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(make_config(tmp_path)) as server,
            membership(tmp_path, server.port) as member,
            membership(tmp_path, server.port) as double,
            following(member),
        ):
            with pytest.raises(RefusedError, match="device 0 is already in the run"):
                await double.join()

    go(scenario)


def test_who_joins_when_the_run_is_over_has_nothing_to_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(make_config(tmp_path)) as server,
            membership(tmp_path, server.port) as member,
        ):
            server.federation.stop("enough")
            await member.join()
            assert member.stopped.is_set()
            assert member.stop_reason == "the run is over"
            assert await member.work_after("digits", -1) is None
            await member.follow()

    go(scenario)


def test_every_round_is_answered_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(make_config(tmp_path, aggregation=FEDAVG)) as server,
            membership(tmp_path, server.port) as member,
            following(member),
        ):
            waiting = asyncio.create_task(member.work_after("digits", -1))
            await until(server, lambda: server.federation.sessions.alive(0)[0].streams > 0)
            assert not waiting.done()
            begin(server)
            answered = []
            directive = await waiting
            for _ in range(3):
                assert directive is not None
                assert directive.kind == pb.DIRECTIVE_KIND_TRAIN_ROUND
                answered.append(directive.version)
                due = asyncio.create_task(member.work_after("digits", directive.version))
                await asyncio.sleep(0)
                assert not due.done()
                publish(server)
                directive = await due
            assert answered == [0, 1, 2]

    go(scenario)


def test_training_freely_is_due_again_and_again_until_the_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(make_config(tmp_path)) as server,
            membership(tmp_path, server.port) as member,
            following(member) as follower,
        ):
            begin(server)
            for trained in (-1, 0, 5):
                directive = await member.work_after("digits", trained)
                assert directive is not None
                assert directive.kind == pb.DIRECTIVE_KIND_TRAIN_FREELY
            server.federation.stop("that is enough")
            await member.stopped.wait()
            assert await member.work_after("digits", 5) is None
            assert member.stop_reason == "that is enough"
            await follower

    go(scenario)


def test_whoever_waits_for_work_hears_of_the_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(make_config(tmp_path)) as server,
            membership(tmp_path, server.port) as member,
            following(member),
        ):
            waiting = asyncio.create_task(member.work_after("digits", -1))
            await until(server, lambda: server.federation.sessions.alive(0)[0].streams > 0)
            server.federation.stop("never begun")
            assert await waiting is None

    go(scenario)


def test_a_restarted_server_is_joined_again(tmp_path: Path) -> None:
    config = make_config(tmp_path, aggregation=FEDAVG)

    async def scenario() -> None:
        async with running(config) as server:
            port = server.port
            other = server.device(1)
            async with membership(tmp_path, port) as member, following(member):
                begin(server)
                assert await member.work_after("digits", -1) is not None
                before = member.assignment("digits")
                await other.join()
                await other.send(other.update())
                await server.server._data.stop(None)
                await server.server._local.stop(None)
                async with resumed(config, port) as again:
                    await until(again, lambda: bool(again.federation.sessions.alive(0)))
                    await until(again, lambda: again.federation.sessions.alive(0)[0].streams > 0)
                    after = member.assignment("digits")
                    assert after.session != before.session
                    assert again.federation.sessions.find(after.session) is not None
                    publish(again)
                    directive = await member.work_after("digits", 0)
                    assert directive is not None
                    assert directive.version == 1
        assert len(agent_events(tmp_path, "joined")) == 2
        assert agent_events(tmp_path, "connection_lost")

    go(scenario)


def test_a_restarted_server_whose_run_is_over_ends_the_wait(tmp_path: Path) -> None:
    config = make_config(tmp_path)

    async def scenario() -> None:
        async with running(config) as server:
            port = server.port
            async with membership(tmp_path, port) as member, following(member):
                waiting = asyncio.create_task(member.work_after("digits", -1))
                await server.server._data.stop(None)
                await server.server._local.stop(None)
                over = config.model_copy(update={"listen": f"127.0.0.1:{port}"})
                async with running(over) as again:
                    again.federation.stop("over meanwhile")
                    assert await waiting is None
                    assert member.stop_reason in ("the run is over", "over meanwhile")

    go(scenario)


def test_the_number_of_the_last_update_is_learnt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            device = server.device()
            await device.join()
            await device.send(device.update(update_id=6))
            # The agent behind `device` never opened its directive stream; its place is taken when
            # its time of grace is over.
            server.federation.sessions.alive(0)[0].ever_streamed = True
            async with membership(tmp_path, server.port) as member:
                await member.join()
                assert member.assignment("digits").last_update == 6

    go(scenario)
