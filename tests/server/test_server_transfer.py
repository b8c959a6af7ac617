"""Models down and updates up, over real connections."""

import asyncio
import dataclasses
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import numpy as np
import pytest
from tests.server.harness import (
    DIMENSION,
    F32,
    FEDASYNC,
    FEDAVG,
    Device,
    Running,
    Update,
    initial_vector,
    make_config,
    make_update,
    ranges,
    running,
)

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import TopK
from fadelab_proto.codecs import decode as decode_payload
from fadelab_proto.events import read_events
from fadelab_proto.packet import Packet, parse_packet
from fadelab_proto.wire import NEWEST_VERSION, frame_packet
from fadelab_server import checkpoint

Scenario = Callable[[Running, Device], Awaitable[None]]
Serve = Callable[..., None]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Run a scenario against a server and device 0, which has joined."""

    def run(scenario: Scenario, **changes: Any) -> None:
        async def body() -> None:
            async with running(make_config(tmp_path, **changes)) as server:
                device = server.device()
                await device.join()
                await scenario(server, device)

        asyncio.run(body())

    return run


def newest(server: Running) -> F32:
    return server.federation.tasks[0].store.newest.vector


def vector_of(packets: list[Packet]) -> F32:
    vector: F32 = np.zeros(DIMENSION, dtype=np.float32)
    for packet in packets:
        segment = decode_payload(
            packet.codec, packet.payload, first=packet.first, count=packet.count
        )
        segment.copy_to(vector)
    return vector


# -- models ----------------------------------------------------------------------------------------


def test_a_model_arrives_whole_with_its_checksum(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        info, packets = await device.fetch(version=NEWEST_VERSION)
        assert (info.version, info.dimension, info.packets) == (0, DIMENSION, 3)
        assert info.checksum == google_crc32c.value(initial_vector().tobytes())
        assert [packet.sequence for packet in packets] == [0, 1, 2]
        assert {packet.packet_class for packet in packets} == {pb.PACKET_CLASS_MODEL}
        np.testing.assert_array_equal(vector_of(packets), initial_vector())

    serve(scenario)


@pytest.mark.parametrize(("skip", "left"), [(1, [1, 2]), (2, [2]), (3, []), (9, [])])
def test_a_fetch_is_resumed_by_skipping_packets(serve: Serve, skip: int, left: list[int]) -> None:
    async def scenario(server: Running, device: Device) -> None:
        whole, packets = await device.fetch(version=0)
        rest_info, rest = await device.fetch(version=0, skip_packets=skip)
        assert rest_info == whole
        assert [packet.sequence for packet in rest] == left
        np.testing.assert_array_equal(vector_of(packets[:skip] + rest), initial_vector())

    serve(scenario)


def test_an_earlier_version_can_be_fetched_while_it_is_held(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        for number in range(1, 4):
            await device.send(device.update(update_id=number, base_version=number - 1))
        info, packets = await device.fetch(version=2)
        assert info.version == packets[0].base_version == 2
        with pytest.raises(grpc.aio.AioRpcError, match="version 1 is not held; the newest is 3"):
            await device.fetch(version=1)

    serve(scenario, history_bytes=0)


def test_a_fetch_needs_a_session_and_a_task(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="there is no task 1"):
            await device.fetch(version=0, task_index=1)
        with pytest.raises(grpc.aio.AioRpcError, match="join first"):
            await server.device(1).fetch(version=0)
        operator = Device(server.connect(f"unix:{server.config.operator_socket}"))
        info, _ = await operator.fetch(version=0)
        assert info.dimension == DIMENSION

    serve(scenario)


# -- uploads ---------------------------------------------------------------------------------------


def test_an_upload_is_answered_packet_by_packet_and_taken(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        replies = await device.upload(device.update(2.0).messages([2, 0, 1]))
        assert [ranges(reply) for reply in replies] == [[], [(2, 2)], [(0, 0), (2, 2)], [(0, 2)]]
        assert [reply.status for reply in replies] == [
            *[pb.UPLOAD_STATUS_RECEIVING] * 3,
            pb.UPLOAD_STATUS_COMPLETE,
        ]
        assert (replies[-1].newest_version, replies[-1].staleness) == (1, 0)
        np.testing.assert_allclose(newest(server), initial_vector() + 1, rtol=1e-6)
        assert server.federation.uploads == {}

    serve(scenario)


def test_a_sparse_update_counts_where_it_has_entries(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        delta = np.zeros(DIMENSION, dtype=np.float32)
        delta[[3, 250]] = 8, -8
        update = make_update(delta, session=device.session, codec=TopK(2))
        assert (await device.send(update)).status == pb.UPLOAD_STATUS_COMPLETE
        np.testing.assert_allclose(newest(server), initial_vector() + delta / 2, rtol=1e-6)

    serve(scenario)


def test_a_stale_update_says_how_stale(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        for number in (1, 2):
            await device.send(device.update(update_id=number, base_version=number - 1))
        reply = await device.send(device.update(update_id=3, base_version=0))
        assert (reply.staleness, reply.newest_version) == (2, 3)

    serve(scenario)


def test_a_partial_upload_is_resumed_on_another_connection_and_session(
    serve: Serve, tmp_path: Path
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        reply = await device.send(device.update(2.0), [1])
        assert (reply.status, ranges(reply)) == (pb.UPLOAD_STATUS_PARTIAL, [(1, 1)])
        again = server.device()
        await again.join()
        assert again.session != device.session
        replies = await again.upload(again.update(2.0).messages([0, 2]))
        assert [ranges(reply) for reply in replies] == [[(1, 1)], [(0, 1)], [(0, 2)]]
        assert replies[-1].status == pb.UPLOAD_STATUS_COMPLETE
        np.testing.assert_allclose(newest(server), initial_vector() + 1, rtol=1e-6)

    serve(scenario)
    (event,) = events(tmp_path, "upload_complete")
    assert (event["packets"], event["payload_bytes"]) == (3, 4 * DIMENSION)
    assert (event["header_bytes"], event["duplicates"]) == (120, 0)


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = read_events(folder / "events" / "server-0.jsonl")
    return [line for line in lines if line["event"] == name]


def test_a_resumption_with_other_content_starts_afresh(serve: Serve, tmp_path: Path) -> None:
    async def scenario(server: Running, device: Device) -> None:
        await device.send(device.update(100.0), [0])
        replies = await device.upload(device.update(2.0).messages())
        assert ranges(replies[0]) == []
        assert replies[-1].status == pb.UPLOAD_STATUS_COMPLETE
        np.testing.assert_allclose(newest(server), initial_vector() + 1, rtol=1e-6)

    serve(scenario)
    assert [event["packets"] for event in events(tmp_path, "upload_abandoned")] == [1]


def test_a_completed_update_is_not_taken_twice(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        await device.send(device.update())
        (reply,) = await device.upload(device.update().messages())
        assert (reply.status, reply.newest_version) == (pb.UPLOAD_STATUS_DUPLICATE, 1)
        assert server.federation.tasks[0].updates == 1

    serve(scenario)


async def next_reply(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> pb.UploadReply:
    data = await call.read()
    assert isinstance(data, bytes)
    return pb.UploadReply.FromString(data)


async def begin(device: Device, update: Update) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """Open a stream, send the header and the first packet, leave it open."""
    call = device.open_upload()
    await call.write(update.messages()[0])
    await call.write(update.messages()[1])
    await next_reply(call)
    assert ranges(await next_reply(call)) == [(0, 0)]
    return call


def test_an_old_stream_cannot_complete_an_update_again(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = device.update()
        old = await begin(device, update)
        assert (await device.send(update, [1, 2])).status == pb.UPLOAD_STATUS_COMPLETE
        await old.write(frame_packet(update.packets[1]))
        assert (await next_reply(old)).status == pb.UPLOAD_STATUS_DUPLICATE
        assert server.federation.tasks[0].updates == 1
        assert server.federation.tasks[0].store.newest.number == 1

    serve(scenario)


def test_an_old_stream_cannot_go_on_with_a_replaced_update(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        first, second = device.update(update_id=1), device.update(update_id=2)
        old = await begin(device, first)
        await device.send(second, [0])
        await old.write(frame_packet(first.packets[1]))
        reply = await next_reply(old)
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "another upload" in reply.reason
        assert (await device.send(second, [1, 2])).status == pb.UPLOAD_STATUS_COMPLETE
        assert server.federation.tasks[0].updates == 1

    serve(scenario)


def test_a_duplicate_is_acknowledged_only_once_it_is_durable(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        loop = asyncio.get_running_loop()
        writing, may_write = asyncio.Event(), asyncio.Event()
        save = checkpoint.save

        def hold(*arguments: Any) -> None:
            loop.call_soon_threadsafe(writing.set)
            asyncio.run_coroutine_threadsafe(may_write.wait(), loop).result()
            save(*arguments)

        monkeypatch.setattr(checkpoint, "save", hold)
        first = asyncio.create_task(device.send(device.update()))
        await writing.wait()
        second = asyncio.create_task(device.send(device.update()))
        # The third stream's refusal shows that the server has dealt with the second one by then.
        assert (await device.send(device.update(update_id=0))).status != 0
        assert not first.done()
        assert not second.done()
        may_write.set()
        assert (await first).status == pb.UPLOAD_STATUS_COMPLETE
        assert (await second).status == pb.UPLOAD_STATUS_DUPLICATE

    serve(scenario)


def test_a_full_disk_refuses_the_upload_and_stops_the_run(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(server: Running, device: Device) -> None:
        monkeypatch.setattr("os.fsync", disk_full)
        reply = await device.send(device.update())
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_STORAGE
        assert "No space left on device" in reply.reason
        assert server.federation.stopped.is_set()
        assert "No space left on device" in (server.federation.stop_reason or "")
        again = await device.send(device.update())
        assert again.status == pb.UPLOAD_STATUS_REFUSED_DRAINING

    serve(scenario)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"session": 1}, pb.UPLOAD_STATUS_REFUSED_SESSION, "join again"),
        ({"task_index": 1}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "did not offer task 1"),
        ({"dimension": 301}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "301 parameters, the model 300"),
        ({"update_id": 0}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "start at 1"),
        ({"packets": 0}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "0 packets cannot"),
        ({"packets": 301}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "301 packets cannot"),
        ({"payload_bytes": 2**63}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "are too many for 300"),
        ({"payload_bytes": 67937}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "are too many for 300"),
        ({"samples": 1_000_000}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "joined with 10"),
        ({"base_version": 7}, pb.UPLOAD_STATUS_REFUSED_BASE_VERSION, "version 7 is not held"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_before_anything_is_kept(
    serve: Serve, fields: dict[str, int], status: pb.UploadStatus.ValueType, reason: str
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = device.update()
        for name, value in fields.items():
            setattr(update.header, name, value)
        (reply,) = await device.upload(update.messages())
        assert reply.status == status
        assert reason in reply.reason
        assert server.federation.uploads == {}
        assert (await device.send(device.update())).status == pb.UPLOAD_STATUS_COMPLETE

    serve(scenario)


def flipped(packet: bytes) -> bytes:
    return packet[:100] + bytes([packet[100] ^ 1]) + packet[101:]


def renamed(packet: bytes, **fields: Any) -> bytes:
    return dataclasses.replace(parse_packet(packet), **fields).encode()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda update: frame_packet(flipped(update.packets[1])), "CRC-32C"),
        (lambda update: frame_packet(update.packets[1][:-1]), "551 bytes received"),
        (lambda update: frame_packet(update.packets[1])[:-1], "declared length"),
        (lambda update: frame_packet(b""), "fewer than a packet's header"),
        (lambda update: frame_packet(renamed(update.packets[1], device=1)), "device is 1"),
        (lambda update: update.head(), "second header"),
        (lambda update: b"", "neither a header nor one whole packet"),
    ],
)
def test_a_bad_packet_is_refused_and_the_whole_ones_are_kept(
    serve: Serve, spoil: Callable[[Update], bytes], reason: str
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = device.update(2.0)
        replies = await device.upload([*update.messages([0]), spoil(update)])
        assert replies[-1].status == pb.UPLOAD_STATUS_REFUSED_PACKET
        assert reason in replies[-1].reason
        rest = await device.upload(update.messages([1, 2]))
        assert [ranges(reply) for reply in rest] == [[(0, 0)], [(0, 1)], [(0, 2)]]
        assert rest[-1].status == pb.UPLOAD_STATUS_COMPLETE
        np.testing.assert_allclose(newest(server), initial_vector() + 1, rtol=1e-6)

    serve(scenario)


def test_a_stream_that_does_not_begin_with_a_header_is_refused(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        (reply,) = await device.upload([frame_packet(device.update().packets[0])])
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_PACKET
        assert "begin with its header" in reply.reason
        (empty,) = await device.upload([])
        assert empty.status == pb.UPLOAD_STATUS_REFUSED_SHAPE

    serve(scenario)


def test_unfinished_uploads_are_bounded_together_but_can_be_resumed(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        assert (await device.send(device.update(), [0])).status == pb.UPLOAD_STATUS_PARTIAL
        other = server.device(1)
        await other.join()
        reply = await other.send(other.update())
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_SHAPE
        assert "bound of 2000 bytes" in reply.reason
        assert (await device.send(device.update(), [1, 2])).status == pb.UPLOAD_STATUS_COMPLETE
        assert (await other.send(other.update())).status == pb.UPLOAD_STATUS_COMPLETE

    serve(scenario, upload_buffer_bytes=2000)


def test_an_update_that_makes_the_model_infinite_is_refused(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        largest = float(np.finfo(np.float32).max)
        await device.send(device.update(largest / 2))
        reply = await device.send(device.update(largest, update_id=2, base_version=1))
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "not finite" in reply.reason
        assert server.federation.uploads == {}
        info, _ = await device.fetch(version=NEWEST_VERSION)
        assert info.version == 1

    serve(scenario)


def test_too_stale_updates_are_refused_by_the_rule(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        for number in (1, 2):
            await device.send(device.update(update_id=number, base_version=number - 1))
        (reply,) = await device.upload(device.update(update_id=3, base_version=0).messages())
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "2 versions stale" in reply.reason

    serve(scenario, aggregation=FEDASYNC | {"max_staleness": 1})


def test_a_round_that_ends_during_an_upload_refuses_the_rest(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        slow = await begin(device, device.update())
        fast = server.device(1)
        await fast.join()
        assert (await fast.send(fast.update())).status == pb.UPLOAD_STATUS_COMPLETE
        for packet in device.update().packets[1:]:
            await slow.write(frame_packet(packet))
        await next_reply(slow)
        reply = await next_reply(slow)
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "round of version 0 is over" in reply.reason
        assert server.federation.uploads == {}

    serve(scenario, aggregation=FEDAVG | {"quorum": 1})


def test_a_second_update_to_the_same_round_is_refused(serve: Serve) -> None:
    async def scenario(server: Running, device: Device) -> None:
        reply = await device.send(device.update())
        assert (reply.status, reply.newest_version) == (pb.UPLOAD_STATUS_COMPLETE, 0)
        (second,) = await device.upload(device.update(update_id=2).messages())
        assert second.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "already contributed" in second.reason

    serve(scenario, aggregation=FEDAVG)


def test_nothing_is_taken_once_the_run_is_over(serve: Serve, tmp_path: Path) -> None:
    async def scenario(server: Running, device: Device) -> None:
        under_way = await begin(device, device.update())
        server.federation.stop("enough")
        for packet in device.update().packets[1:]:
            await under_way.write(frame_packet(packet))
        await next_reply(under_way)
        assert (await next_reply(under_way)).status == pb.UPLOAD_STATUS_REFUSED_DRAINING
        late = await device.send(device.update(update_id=2))
        assert late.status == pb.UPLOAD_STATUS_REFUSED_DRAINING
        assert server.federation.tasks[0].updates == 0

    serve(scenario)
    assert [event["packets"] for event in events(tmp_path, "upload_partial")] == [1]
