"""Uploads that are refused, and what is left of them, over real connections."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.harness import (
    FEDASYNC,
    FEDAVG,
    Device,
    Running,
    ServeDevice,
    Update,
    begin,
    go_on,
    initial_vector,
    logged,
    newest,
    outcome,
    ranges,
    resume,
)

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import parse_packet
from fadelab_proto.wire import NEWEST_VERSION, frame_packet


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
    serve_device: ServeDevice,
    fields: dict[str, int],
    status: pb.UploadStatus.ValueType,
    reason: str,
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

    serve_device(scenario)


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
        (lambda update: update.head(), "only one header"),
        (lambda update: b"", "neither a header nor one whole packet"),
    ],
)
def test_a_bad_packet_is_refused_and_the_whole_ones_are_kept(
    serve_device: ServeDevice, spoil: Callable[[Update], bytes], reason: str
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = device.update(2.0)
        replies = await device.upload([*update.messages([0]), spoil(update)])
        assert replies[-1].status == pb.UPLOAD_STATUS_REFUSED_PACKET
        assert reason in replies[-1].reason
        call, held = await resume(device, update)
        assert held == [(0, 0)]
        reply = await go_on(call, update, [1, 2])
        assert ranges(reply) == [(0, 2)]
        assert reply.status == pb.UPLOAD_STATUS_COMPLETE
        np.testing.assert_allclose(newest(server), initial_vector() + 1, atol=1e-6)

    serve_device(scenario)


def test_a_stream_that_does_not_begin_with_a_header_is_refused(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        (reply,) = await device.upload([frame_packet(device.update().packets[0])])
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_PACKET
        assert "begin with its header" in reply.reason
        (empty,) = await device.upload([])
        assert empty.status == pb.UPLOAD_STATUS_REFUSED_SHAPE

    serve_device(scenario)


def test_a_refusal_reaches_a_device_that_goes_on_sending(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        update = device.update()
        update.header.base_version = 7
        more = [frame_packet(packet) for packet in update.packets] * 500
        (reply,) = await device.upload([*update.messages(), *more])
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_BASE_VERSION

    serve_device(scenario)


def test_what_memory_has_no_room_for_is_read_back_from_the_journal(
    serve_device: ServeDevice,
) -> None:
    async def scenario(server: Running, device: Device) -> None:
        for sequence in (2, 0):
            await device.send(device.update(2.0), [sequence])
        assert 0 < server.federation.keeper.memory_bytes <= 700
        assert (await device.send(device.update(2.0), [1])).status == pb.UPLOAD_STATUS_COMPLETE
        np.testing.assert_allclose(newest(server), initial_vector() + 1, atol=1e-6)
        assert server.federation.keeper.memory_bytes == 0

    serve_device(scenario, upload_memory_bytes=700)


def test_an_update_that_makes_the_model_infinite_is_refused(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        await device.send(device.update(1e24))
        reply = await device.send(device.update(1e26, update_id=2, base_version=1))
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "not finite" in reply.reason
        assert server.federation.uploads == {}
        info, _ = await device.fetch(version=NEWEST_VERSION)
        assert info.version == 1

    serve_device(scenario)


def test_too_stale_updates_are_refused_by_the_rule(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        for number in (1, 2):
            await device.send(device.update(update_id=number, base_version=number - 1))
        (reply,) = await device.upload(device.update(update_id=3, base_version=0).messages())
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "2 versions stale" in reply.reason

    serve_device(scenario, aggregation=FEDASYNC | {"max_staleness": 1})


def test_a_round_that_ends_during_an_upload_refuses_the_rest(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        slow = await begin(device, device.update())
        fast = server.device(1)
        await fast.join()
        assert (await fast.send(fast.update())).status == pb.UPLOAD_STATUS_COMPLETE
        for packet in device.update().packets[1:]:
            await slow.write(frame_packet(packet))
        reply = await outcome(slow)
        assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "round of version 0 is over" in reply.reason
        assert server.federation.uploads == {}

    serve_device(scenario, aggregation=FEDAVG | {"quorum": 1})


def test_a_second_update_to_the_same_round_is_refused(serve_device: ServeDevice) -> None:
    async def scenario(server: Running, device: Device) -> None:
        reply = await device.send(device.update())
        assert (reply.status, reply.newest_version) == (pb.UPLOAD_STATUS_COMPLETE, 0)
        (second,) = await device.upload(device.update(update_id=2).messages())
        assert second.status == pb.UPLOAD_STATUS_REFUSED_RULE
        assert "already contributed" in second.reason

    serve_device(scenario, aggregation=FEDAVG)


def test_nothing_is_taken_once_the_run_is_over(serve_device: ServeDevice, tmp_path: Path) -> None:
    async def scenario(server: Running, device: Device) -> None:
        under_way = await begin(device, device.update())
        server.federation.stop("enough")
        for packet in device.update().packets[1:]:
            await under_way.write(frame_packet(packet))
        assert (await outcome(under_way)).status == pb.UPLOAD_STATUS_REFUSED_DRAINING
        late = await device.send(device.update(update_id=2))
        assert late.status == pb.UPLOAD_STATUS_REFUSED_DRAINING
        assert server.federation.tasks[0].updates == 0

    serve_device(scenario)
    assert [event["packets"] for event in logged(tmp_path, "upload_partial")] == [1]
