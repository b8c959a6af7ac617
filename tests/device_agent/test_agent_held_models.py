"""A device that holds a model fetches only what it lacks, however often the connection breaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.device_agent.agent_harness import (
    LARGE,
    ArrivalClock,
    HandRadio,
    HurriedClock,
    Proxy,
    agent_events,
    agent_log,
    go,
    large_config,
    proxied,
    resumed,
)
from tests.device_agent.test_agent_downlink import session
from tests.server.harness import F32, Running, initial_vector, make_config, make_update, running

from fadelab_agent.downlink import Downlink, Model
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.wire import NEWEST_VERSION

DELTA = {"kind": "delta"}
LAQ = {"kind": "quantised", "codec": {"kind": "laq", "bits": 7}}


def publish(server: Running, vector: F32) -> None:
    task = server.federation.tasks[0]
    task.store.show(task._publish(vector, 0.0))


def move(server: Running, places: int) -> None:
    """Publish a version that differs from the newest in so many places."""
    vector = server.federation.tasks[0].store.newest.vector.copy()
    vector[:: LARGE // places] += np.float32(0.5)
    publish(server, vector)


def newest(server: Running) -> F32:
    return server.federation.tasks[0].store.shown.vector


def keeping(channel: grpc.aio.Channel, log: Any, clock: Clock | None = None) -> Downlink:
    return Downlink(
        channel,
        radio=HandRadio(),
        clock=clock or HurriedClock(),
        log=log,
        stall_s=30.0,
        keeps_model=True,
    )


@dataclass
class Held:
    """A device that holds version 0, behind a connection that carries few more bytes."""

    server: Running
    proxy: Proxy
    down: Downlink
    token: int
    clock: ArrivalClock

    async def fetch(self, version: int) -> Model:
        return await fetch(self.down, self.token, version)

    async def begin_fetch(self, version: int) -> asyncio.Task[Model]:
        """Begin a download; return once it has received packets and no more come through."""
        self.clock.asked.clear()
        fetching = asyncio.create_task(self.fetch(version))
        await self.proxy.held.wait()
        # What has only reached the machine of the device is lost when the connection breaks.
        await self.clock.asked.wait()
        return fetching

    async def lose_session(self) -> int:
        """Lose session and connection within the download of version 1; return the next session."""
        move(self.server, places=6400)
        fetching = await self.begin_fetch(1)
        # To join again ends the session before.
        successor = await session(self.server)
        self.proxy.cut()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await fetching
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        return successor


@asynccontextmanager
async def held_then_cut(folder: Path, *, hold_down: int, **settings: Any) -> AsyncIterator[Held]:
    """Give a device that holds version 0 and whose connection carries ``hold_down`` bytes more."""
    async with running(large_config(folder, **settings)) as server:
        token = await session(server)
        async with proxied(server) as (proxy, channel):
            with agent_log(folder) as log:
                clock = ArrivalClock()
                there = Held(server, proxy, keeping(channel, log, clock), token, clock)
                await there.fetch(NEWEST_VERSION)
                proxy._limits["down"] = proxy.passed_down[0] + hold_down
                yield there


async def fetch(down: Downlink, token: int, version: int) -> Model:
    return await down.fetch(session=token, task_index=0, dimension=LARGE, version=version)


@pytest.mark.parametrize(
    ("settings", "kind"), [(DELTA, "delta"), (LAQ, "quantised")], ids=["delta", "quantised"]
)
def test_a_device_that_was_away_gets_only_what_has_changed(
    tmp_path: Path, settings: dict[str, Any], kind: str
) -> None:
    async def scenario() -> None:
        async with held_then_cut(tmp_path, hold_down=10**9, downlink=settings) as there:
            server = there.server
            for _ in range(3):
                move(server, places=64)
            model = await there.fetch(3)
            np.testing.assert_array_equal(model.vector, newest(server))
            assert (model.kind, model.base_version) == (kind, 0)
            assert model.payload_bytes < 0.7 * 4 * LARGE
            # And then from there on.
            move(server, places=64)
            model = await there.fetch(4)
            np.testing.assert_array_equal(model.vector, newest(server))
            assert (model.kind, model.base_version) == (kind, 3)
            again = await there.fetch(4)
            assert (again.packets, again.payload_bytes, again.base_version) == (0, 0, 4)
            np.testing.assert_array_equal(again.vector, newest(server))

    go(scenario)


def test_without_keeping_models_every_download_is_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(large_config(tmp_path, downlink=DELTA)) as server:
            channel = server.connect(f"127.0.0.1:{server.port}")
            token = await session(server)
            with agent_log(tmp_path) as log:
                down = Downlink(
                    channel, radio=HandRadio(), clock=HurriedClock(), log=log, stall_s=30.0
                )
                for version in (0, 1):
                    model = await fetch(down, token, version)
                    assert (model.kind, model.payload_bytes) == ("full", 4 * LARGE)
                    move(server, places=8)

    go(scenario)


@pytest.mark.parametrize("settings", [DELTA, LAQ], ids=["delta", "quantised"])
def test_changes_that_were_cut_go_on_where_they_stood(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async def scenario() -> None:
        async with held_then_cut(tmp_path, hold_down=12_000, downlink=settings) as there:
            server = there.server
            for _ in range(2):
                move(server, places=6400)
            fetching = await there.begin_fetch(2)
            move(server, places=6400)
            there.proxy.cut()
            model = await fetching
            assert model.version == 2
            np.testing.assert_array_equal(
                model.vector, server.federation.tasks[0].store.held()[2].vector
            )
            (event,) = agent_events(tmp_path, "download_interrupted")
            assert 0 < event["packets"] < model.packets
            # Nothing came twice: the packets are as many as the whole way has.
            delivery = await server.federation.deliveries[0].prepare(
                server.federation.tasks[0].store.held()[2], held=0
            )
            assert model.packets == len(delivery.chunks)

    go(scenario)


def test_steps_that_went_while_the_connection_was_cut_are_replaced_by_the_whole_model(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with held_then_cut(
            tmp_path, hold_down=8_000, downlink=LAQ, downlink_memory_bytes=30_000
        ) as there:
            server = there.server
            move(server, places=6400)
            fetching = await there.begin_fetch(1)
            for _ in range(4):
                move(server, places=6400)
            # What was ready to be sent may have to go as well.
            server.federation.deliveries[0]._ready.clear()
            there.proxy.cut()
            model = await fetching
            assert (model.version, model.kind, model.base_version) == (1, "full", None)
            np.testing.assert_array_equal(
                model.vector, server.federation.tasks[0].store.held()[1].vector
            )
            causes = [e["cause"] for e in agent_events(tmp_path, "download_interrupted")]
            assert causes[-1] == "the server can no longer go on as it had begun"
            # What came of the steps is counted, though it was of no use.
            assert model.payload_bytes > 4 * LARGE

    go(scenario)


def test_what_arrived_before_the_session_was_lost_is_not_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with held_then_cut(tmp_path, hold_down=12_000, downlink=DELTA) as there:
            server, down = there.server, there.down
            successor = await there.lose_session()
            left = down.unfinished
            assert left is not None
            assert left.packets > 0
            model = await fetch(down, successor, 1)
            np.testing.assert_array_equal(model.vector, newest(server))
            assert down.unfinished is None
            delivery = await server.federation.deliveries[0].prepare(
                server.federation.tasks[0].store.shown, held=0
            )
            # Each packet is counted once, by the fetch that it came with.
            assert left.packets + model.packets == len(delivery.chunks)

    go(scenario)


def test_what_was_begun_is_left_when_another_version_is_wanted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with held_then_cut(tmp_path, hold_down=12_000, downlink=DELTA) as there:
            successor = await there.lose_session()
            move(there.server, places=8)
            model = await fetch(there.down, successor, 2)
            assert (model.version, model.base_version) == (2, 0)
            np.testing.assert_array_equal(model.vector, newest(there.server))

    go(scenario)


@pytest.mark.parametrize("settings", [DELTA, LAQ], ids=["delta", "quantised"])
def test_a_server_that_was_restarted_goes_on_from_what_devices_hold(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = make_config(tmp_path, downlink=settings, seed=5)

    async def contribute(server: Running, number: int) -> int:
        device = server.device()
        await device.join()
        base = server.federation.tasks[0].store.shown.number
        value = 0.1 * np.arange(300, dtype=np.float32) * (np.arange(300) % 50 == number)
        update = make_update(value, session=device.session, update_id=number, base_version=base)
        assert (await device.send(update)).status == pb.UPLOAD_STATUS_COMPLETE
        return device.session

    async def scenario() -> None:
        with agent_log(tmp_path) as log:
            async with running(config) as server, proxied(server) as (proxy, channel):
                down = keeping(channel, log)
                for number in (1, 2):
                    token = await contribute(server, number)
                await down.fetch(session=token, task_index=0, dimension=300)
                port = server.port
                await server.server._data.stop(None)
                await server.server.federation.keeper.log.close()
                async with resumed(config, port) as again:
                    token = await contribute(again, 3)
                    model = await down.fetch(session=token, task_index=0, dimension=300)
                    assert (model.version, model.base_version) == (3, 2)
                    assert model.payload_bytes < 700
                    np.testing.assert_array_equal(model.vector, newest(again))
                proxy.cut()

    go(scenario)


def test_a_model_cannot_be_changed_by_whoever_trains_from_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            channel = server.connect(f"127.0.0.1:{server.port}")
            with agent_log(tmp_path) as log:
                down = keeping(channel, log)
                token = await session(server)
                model = await down.fetch(session=token, task_index=0, dimension=300)
            with pytest.raises(ValueError, match="read-only"):
                model.vector[0] = 1
            np.testing.assert_array_equal(model.vector, initial_vector())

    go(scenario)
