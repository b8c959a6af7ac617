"""Hostile upload streams: whatever is sent, a status comes back and the server goes on."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.harness import DIMENSION, Device, Running, Update, make_config, running

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.wire import NEWEST_VERSION, frame_packet

ENDINGS = set(pb.UploadStatus.values()) - {
    pb.UPLOAD_STATUS_UNSPECIFIED,
    pb.UPLOAD_STATUS_RECEIVING,
}
_FIELDS = pb.UploadHeader.DESCRIPTOR.fields_by_name
_NOT_NUMBERS = {"datagram_classes", "fresh_reference"} & set(_FIELDS)
_NUMBERS = sorted(set(_FIELDS) - _NOT_NUMBERS)


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """Return ``data`` with some bytes overwritten, cut out or put in."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(result)))
        length = draw(st.integers(0, 4))
        result[start : start + length] = draw(st.binary(max_size=4))
    return bytes(result)


@st.composite
def headers(draw: st.DrawFn, update: Update) -> bytes:
    """Return a well-formed header message with one or two fields that are off."""
    header = pb.UploadHeader()
    header.CopyFrom(update.header)
    for name in draw(st.lists(st.sampled_from(_NUMBERS), max_size=2)):
        near = st.integers(max(0, getattr(header, name) - 1), getattr(header, name) + 1)
        setattr(header, name, min(draw(near | st.integers(0, 2**32 - 1)), 2**32 - 1))
    header.datagram_classes.extend(draw(st.lists(st.integers(0, 2**31 - 1), max_size=3)))
    return pb.UploadPart(header=header).SerializeToString()


def query(number: int) -> bytes:
    return pb.UploadPart(query=pb.UploadQuery(number=number)).SerializeToString()


def streams(update: Update) -> st.SearchStrategy[list[bytes]]:
    packets = [frame_packet(packet) for packet in update.packets]
    part = (
        st.sampled_from(packets)
        | st.sampled_from(packets).flatmap(spoiled)
        | st.sampled_from(update.packets).flatmap(spoiled).map(frame_packet)
        | st.binary(max_size=60)
        | st.integers(0, 2**32 - 1).map(query)
        | headers(update)
    )
    first = st.just(update.head()) | headers(update) | spoiled(update.head()) | part
    return st.lists(st.binary(max_size=60), max_size=4) | st.tuples(
        first, st.lists(part, max_size=5)
    ).map(lambda pair: [pair[0], *pair[1]])


async def attack(server: Running, device: Device, messages: list[bytes]) -> None:
    before = server.federation.tasks[0].updates
    replies = await device.upload(messages)
    assert replies[-1].status in ENDINGS
    assert {reply.status for reply in replies[:-1]} <= {pb.UPLOAD_STATUS_RECEIVING}
    taken = server.federation.tasks[0].updates - before
    assert taken == (replies[-1].status == pb.UPLOAD_STATUS_COMPLETE)
    info, _ = await device.fetch(version=NEWEST_VERSION)
    assert info.dimension == DIMENSION


def test_no_stream_of_bytes_brings_the_server_down(tmp_path: Path) -> None:
    async def prepare(stack: AsyncExitStack) -> tuple[Running, Device]:
        server = await stack.enter_async_context(
            running(make_config(tmp_path, datagram_listen="127.0.0.1:0"))
        )
        device = server.device()
        await device.join()
        return server, device

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server, device = runner.run(prepare(stack))
        update = device.update()

        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(streams(update))
        def send(messages: list[bytes]) -> None:
            runner.run(attack(server, device, messages))

        try:
            send()
            number = server.federation.tasks[0].last_update.get(0, 0) + 1
            base = server.federation.tasks[0].store.newest.number
            last = device.update(update_id=number, base_version=base)
            reply = runner.run(device.send(last))
            assert reply.status == pb.UPLOAD_STATUS_COMPLETE
        finally:
            runner.run(stack.aclose())
