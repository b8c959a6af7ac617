"""Models down and updates up, over real connections."""

import asyncio
import errno
import threading
from pathlib import Path

import google_crc32c
import grpc
import numpy as np
import pytest
from tests.server.harness import (
    DIMENSION,
    F32,
    Device,
    FakeClock,
    Running,
    ServeDevice,
    Update,
    begin,
    go_on,
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
from fadelab_proto.codecs import TopK
from fadelab_proto.codecs import decode as decode_payload
from fadelab_proto.packet import Packet
from fadelab_proto.wire import NEWEST_VERSION, frame_packet
from fadelab_server.reading import TELL_EVERY_S


def vector_of(packets: list[Packet]) -> F32:
    vector: F32 = np.zeros(DIMENSION, dtype=np.float32)
    for packet in packets:
        segment = decode_payload(
            packet.codec, packet.payload, first=packet.first, count=packet.count
        )
        segment.copy_to(vector)
    return vector


# -- models ----------------------------------------------------------------------------------------


def test_a_model_arrives_whole_with_its_checksum(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        info, packets = await device.fetch(version=NEWEST_VERSION)
        assert (info.version, info.dimension, info.packets) == (0, DIMENSION, 3)
        assert info.checksum == google_crc32c.value(initial_vector().tobytes())
        assert [packet.sequence for packet in packets] == [0, 1, 2]
        assert {packet.packet_class for packet in packets} == {pb.PACKET_CLASS_MODEL}
        np.testing.assert_array_equal(vector_of(packets), initial_vector())

    serve_device(scenario)


@pytest.mark.parametrize(("skip", "left"), [(1, [1, 2]), (2, [2]), (3, []), (9, [])])
def test_a_fetch_is_resumed_by_skipping_packets(
    serve_device: ServeDevice, skip: int, left: list[int]
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        whole, packets = await device.fetch(version=0)
        rest_info, rest = await device.fetch(version=0, skip_packets=skip)
        assert rest_info == whole
        assert [packet.sequence for packet in rest] == left
        np.testing.assert_array_equal(vector_of(packets[:skip] + rest), initial_vector())

    serve_device(scenario)


def test_an_earlier_version_can_be_fetched_while_it_is_held(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        for number in range(1, 4):
            await device.send(device.update(update_id=number, base_version=number - 1))
        info, packets = await device.fetch(version=2)
        assert info.version == packets[0].base_version == 2
        with pytest.raises(grpc.aio.AioRpcError, match="version 1 is not held; the newest is 3"):
            await device.fetch(version=1)

    serve_device(scenario, history_bytes=0)


def test_a_fetch_needs_a_session_and_a_task(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="there is no task 1"):
            await device.fetch(version=0, task_index=1)
        with pytest.raises(grpc.aio.AioRpcError, match="join first"):
            await server.device(1).fetch(version=0)
        operator = Device(server.connect(f"unix:{server.config.operator_socket}"))
        info, _ = await operator.fetch(version=0)
        assert info.dimension == DIMENSION

    serve_device(scenario)


# -- uploads ---------------------------------------------------------------------------------------


def test_an_upload_is_answered_in_the_end_and_whenever_the_device_asks(
    serve_device: ServeDevice,
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = device.update(2.0)
        call = device.open_upload()
        await call.write(update.head())
        for number, held in enumerate(([(2, 2)], [(0, 0), (2, 2)]), 1):
            await call.write(frame_packet(update.packets[[2, 0][number - 1]]))
            query = pb.UploadQuery(number=number)
            await call.write(pb.UploadPart(query=query).SerializeToString())
            while (told := await next_reply(call)).answered < number:
                assert told.status == pb.UPLOAD_STATUS_RECEIVING
            assert (told.status, ranges(told)) == (pb.UPLOAD_STATUS_RECEIVING, held)
        reply = await go_on(call, update, [1])
        assert (reply.status, ranges(reply)) == (pb.UPLOAD_STATUS_COMPLETE, [(0, 2)])
        assert (reply.newest_version, reply.staleness) == (1, 0)
        np.testing.assert_allclose(newest(server), initial_vector() + 1, atol=1e-6)
        assert server.federation.uploads == {}

    serve_device(scenario)


def test_a_stream_hears_of_its_progress_now_and_then(tmp_path: Path) -> None:
    clock = FakeClock()

    async def scenario() -> None:
        async with running(make_config(tmp_path), clock) as server:
            device = server.device()
            await device.join()
            call = device.open_upload()
            header, *packets = device.update().messages([0, 1])
            await call.write(header)
            for packet in packets:
                await call.write(packet)
            seen = -1
            while not any(len(held.received) == 2 for held in server.federation.uploads.values()):
                seen = await server.federation.changed.changed_since(seen)
            news = asyncio.create_task(next_reply(call))
            await device.fetch(version=0)  # which takes longer than an answer would
            assert not news.done()
            clock.advance(TELL_EVERY_S)
            assert ranges(await news) == [(0, 1)]
            call.cancel()

    asyncio.run(scenario())


def test_a_sparse_update_counts_where_it_has_entries(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        delta = np.zeros(DIMENSION, dtype=np.float32)
        delta[[3, 250]] = 8, -8
        update = make_update(delta, session=device.session, codec=TopK(2))
        assert (await device.send(update)).status == pb.UPLOAD_STATUS_COMPLETE
        np.testing.assert_allclose(newest(server), initial_vector() + delta / 2, atol=1e-6)

    serve_device(scenario)


def test_a_stale_update_says_how_stale(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        for number in (1, 2):
            await device.send(device.update(update_id=number, base_version=number - 1))
        reply = await device.send(device.update(update_id=3, base_version=0))
        assert (reply.staleness, reply.newest_version) == (2, 3)

    serve_device(scenario)


def test_a_partial_upload_is_resumed_on_another_connection_and_session(
    serve_device: ServeDevice, tmp_path: Path
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        reply = await device.send(device.update(2.0), [1])
        assert (reply.status, ranges(reply)) == (pb.UPLOAD_STATUS_PARTIAL, [(1, 1)])
        again = server.device()
        await again.join()
        assert again.session != device.session
        update = again.update(2.0)
        call, held = await resume(again, update)
        assert held == [(1, 1)]
        reply = await go_on(call, update, [0, 2])
        assert (reply.status, ranges(reply)) == (pb.UPLOAD_STATUS_COMPLETE, [(0, 2)])
        np.testing.assert_allclose(newest(server), initial_vector() + 1, atol=1e-6)

    serve_device(scenario)
    (event,) = logged(tmp_path, "upload_complete")
    assert (event["packets"], event["payload_bytes"]) == (3, 4 * DIMENSION)
    assert (event["header_bytes"], event["duplicates"]) == (120, 0)


def test_a_resumption_with_other_content_starts_afresh(
    serve_device: ServeDevice, tmp_path: Path
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        await device.send(device.update(100.0), [0])
        update = device.update(2.0)
        call, held = await resume(device, update)
        assert held == []
        assert (await go_on(call, update, range(3))).status == pb.UPLOAD_STATUS_COMPLETE
        np.testing.assert_allclose(newest(server), initial_vector() + 1, atol=1e-6)

    serve_device(scenario)
    assert [event["packets"] for event in logged(tmp_path, "upload_abandoned")] == [1]


def test_a_completed_update_is_not_taken_twice(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        await device.send(device.update())
        (reply,) = await device.upload(device.update().messages())
        assert (reply.status, reply.newest_version) == (pb.UPLOAD_STATUS_DUPLICATE, 1)
        assert server.federation.tasks[0].updates == 1

    serve_device(scenario)


def test_an_old_stream_cannot_complete_an_update_again(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = device.update()
        old = await begin(device, update)
        assert (await device.send(update, [1, 2])).status == pb.UPLOAD_STATUS_COMPLETE
        await old.write(frame_packet(update.packets[1]))
        assert (await next_reply(old)).status == pb.UPLOAD_STATUS_DUPLICATE
        assert server.federation.tasks[0].updates == 1
        assert server.federation.tasks[0].store.newest.number == 1

    serve_device(scenario)


def test_an_old_stream_cannot_go_on_with_a_replaced_update(serve_device: ServeDevice) -> None:
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

    serve_device(scenario)


def test_a_duplicate_is_acknowledged_only_once_it_is_durable(
    serve_device: ServeDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        loop = asyncio.get_running_loop()
        writing, may_write = asyncio.Event(), threading.Event()

        def hold(_: int) -> None:
            loop.call_soon_threadsafe(writing.set)
            may_write.wait()

        monkeypatch.setattr("os.fdatasync", hold)
        first = asyncio.create_task(device.send(device.update()))
        await writing.wait()
        second = asyncio.create_task(device.send(device.update()))
        # The third stream's refusal shows that the server has dealt with the second one by then.
        third = await device.send(device.update(update_id=0))
        assert third.status == pb.UPLOAD_STATUS_REFUSED_SHAPE
        assert not first.done()
        assert not second.done()
        may_write.set()
        assert (await first).status == pb.UPLOAD_STATUS_COMPLETE
        assert (await second).status in (pb.UPLOAD_STATUS_COMPLETE, pb.UPLOAD_STATUS_DUPLICATE)
        assert server.federation.tasks[0].updates == 1

    serve_device(scenario)


def test_a_full_disk_refuses_the_upload_and_stops_the_run(
    serve_device: ServeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(server: Running, device: Device) -> None:
        monkeypatch.setattr("os.fdatasync", disk_full)
        reply = await device.send(device.update())
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_STORAGE
        assert "No space left on device" in reply.reason
        assert server.federation.stopped.is_set()
        assert "No space left on device" in (server.federation.stop_reason or "")
        again = await device.send(device.update())
        assert again.status == pb.UPLOAD_STATUS_REFUSED_DRAINING

    serve_device(scenario)


def closed(device: Device, update: Update, sequences: list[int]) -> list[bytes]:
    """Return the messages of an update that its device gives up after some packets."""
    close = pb.UploadPart(close=pb.UploadClose()).SerializeToString()
    return [*update.messages(sequences), close]


def test_what_arrived_of_an_update_that_was_closed_counts(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = device.update(2.0)
        *_, reply = await device.upload(closed(device, update, [0, 2]))
        assert reply.status == pb.UPLOAD_STATUS_CLOSED
        assert ranges(reply) == [(0, 0), (2, 2)]
        expected = initial_vector()
        expected[:128] += 1
        expected[256:] += 1
        np.testing.assert_allclose(newest(server), expected, atol=1e-6)
        # Whoever did not hear the reply asks again, and is told the same.
        again = await device.send(update)
        assert (again.status, ranges(again)) == (pb.UPLOAD_STATUS_CLOSED, [(0, 0), (2, 2)])
        assert server.federation.tasks[0].updates == 1

    serve_device(scenario, partial_updates="keep")


@pytest.mark.parametrize(("policy", "sequences"), [("discard", [0, 2]), ("keep", [])])
def test_a_closed_update_of_which_nothing_counts_is_discarded(
    serve_device: ServeDevice, policy: str, sequences: list[int]
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        *_, reply = await device.upload(closed(device, device.update(), sequences))
        assert reply.status == pb.UPLOAD_STATUS_DISCARDED
        assert server.federation.uploads == {}
        assert server.federation.tasks[0].updates == 0
        reply = await device.send(device.update(update_id=2))
        assert reply.status == pb.UPLOAD_STATUS_COMPLETE

    serve_device(scenario, partial_updates=policy)


def test_a_complete_update_may_be_closed_too(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        *_, reply = await device.upload(closed(device, device.update(), [0, 1, 2]))
        assert reply.status == pb.UPLOAD_STATUS_COMPLETE

    serve_device(scenario)
