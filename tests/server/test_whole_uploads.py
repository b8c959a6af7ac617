"""Updates whose only packet comes with its header in one message, over real connections."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.harness import (
    DIMENSION,
    F32,
    FEDAVG,
    Device,
    Running,
    ServeDevice,
    Update,
    initial_vector,
    logged,
    make_config,
    make_update,
    newest,
    next_reply,
    ranges,
    resume,
    running,
)

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import DenseF16, TopK
from fadelab_proto.events import EventLog
from fadelab_proto.wire import frame_whole_upload
from fadelab_server.federation import Federation

SPIKE: F32 = np.zeros(DIMENSION, dtype=np.float32)
SPIKE[7] = 2.0


def small_update(device: Device, **changes: Any) -> Update:
    return make_update(
        SPIKE, device=device.number, session=device.session, codec=TopK(5, DenseF16()), **changes
    )


def test_an_update_in_one_message_is_taken_as_one_from_a_stream(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = small_update(device)
        reply = await device.send_whole(update.whole())
        assert reply.status == pb.UPLOAD_STATUS_COMPLETE
        assert ranges(reply) == [(0, 0)]
        assert (reply.staleness, reply.newest_version) == (0, 1)
        whole = newest(server).copy()
        # The same once more, however it comes, changes nothing.
        for again in (device.send_whole(update.whole()), device.send(update)):
            assert (await again).status == pb.UPLOAD_STATUS_DUPLICATE
        np.testing.assert_array_equal(newest(server), whole)
        streamed = small_update(device, update_id=2, base_version=1)
        assert (await device.send(streamed)).status == pb.UPLOAD_STATUS_COMPLETE
        step = whole - initial_vector()
        np.testing.assert_array_equal(np.flatnonzero(newest(server) - whole), np.flatnonzero(step))
        assert server.federation.tasks[0].updates == 2

    serve_device(scenario)


def test_an_update_that_a_stream_has_begun_may_come_in_one_message(
    serve_device: ServeDevice,
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = small_update(device)
        call, held = await resume(device, update)
        assert held == []
        assert (await device.send_whole(update.whole())).status == pb.UPLOAD_STATUS_COMPLETE
        await call.write(update.messages()[1])
        await call.done_writing()
        reply = await next_reply(call)
        assert reply.status == pb.UPLOAD_STATUS_DUPLICATE
        assert server.federation.tasks[0].updates == 1

    serve_device(scenario)


@pytest.mark.parametrize(
    ("spoilt", "status", "reason"),
    [
        ({"session": 1}, pb.UPLOAD_STATUS_REFUSED_SESSION, "unknown session"),
        ({"task_index": 3}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "did not offer task 3"),
        ({"dimension": 5}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "5 parameters, the model 300"),
        ({"base_version": 9}, pb.UPLOAD_STATUS_REFUSED_BASE_VERSION, "version 9 is not held"),
        ({"packets": 2}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "one packet, the update has 2"),
        ({"update_id": 4}, pb.UPLOAD_STATUS_REFUSED_PACKET, "the packet's update is 1"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, spoilt: dict[str, int], status: int, reason: str
) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            device = server.device()
            await device.join()
            update = small_update(device)
            for name, value in spoilt.items():
                setattr(update.header, name, value)
            reply = await device.send_whole(update.whole())
            assert reply.status == status
            assert reason in reply.reason
            assert server.federation.tasks[0].updates == 0

    asyncio.run(scenario())
    malformed = status != pb.UPLOAD_STATUS_REFUSED_BASE_VERSION
    assert len(logged(tmp_path, "stream_refused")) == malformed


def test_damaged_messages_are_refused_and_change_nothing(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = small_update(device)
        whole = update.whole()
        draw = np.random.default_rng(5)
        before = newest(server).copy()
        broken = [b"", whole[:1], whole[:-1], whole + b"x", update.messages()[0]]
        broken += [frame_whole_upload(update.header, b"")]
        packet_at = len(whole) - len(update.packets[0])
        for at in draw.integers(packet_at, len(whole), 60):
            broken.append(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        for message in broken:
            reply = await device.send_whole(message)
            assert reply.status == pb.UPLOAD_STATUS_REFUSED_PACKET
        np.testing.assert_array_equal(newest(server), before)
        assert (await device.send_whole(whole)).status == pb.UPLOAD_STATUS_COMPLETE

    serve_device(scenario)


def test_what_was_answered_is_in_the_journal(tmp_path: Path) -> None:
    config = make_config(tmp_path, aggregation=FEDAVG, devices=2)

    async def live() -> None:
        async with running(config) as server:
            devices = [server.device(number) for number in range(2)]
            for device in devices:
                await device.join()
            reply = await devices[0].send_whole(small_update(devices[0]).whole())
            assert reply.status == pb.UPLOAD_STATUS_COMPLETE

    async def again() -> None:
        with EventLog(tmp_path / "again", "server", "0", SystemClock()) as log:
            federation = Federation(config, SystemClock(), log)
            federation.resume(config.checkpoint_dir)
            assert federation.tasks[0].updates == 1
            assert federation.tasks[0].last_update == {0: 1}

    asyncio.run(live())
    asyncio.run(again())
