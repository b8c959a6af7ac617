import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.harness import DIMENSION, F32, RUN, Update, initial_vector, make_update

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import CodecError, TopK
from fadelab_proto.packet import PacketError, parse_packet
from fadelab_server.assembly import Held, UpdateAssembly
from fadelab_server.model_store import Version

DELTA = initial_vector()
BASE = Version(3, initial_vector(), 1.0)
UPDATE = make_update(DELTA, base_version=3)
TOP = make_update(DELTA, base_version=3, codec=TopK(290))


def assembly(update: Update = UPDATE) -> UpdateAssembly:
    return UpdateAssembly(update.header, BASE, device=0, run_id=RUN, now_s=5.0)


def add(target: UpdateAssembly, data: bytes, now_s: float = 6.0, *, in_memory: bool = True) -> None:
    """Do what the server does with a packet, whose place in the journal is its sequence number."""
    packet = target.accept(memoryview(data))
    if packet is not None:
        held = Held(packet.sequence, len(data), packet if in_memory else None)
        target.hold(packet, held, now_s)


def unread(position: int, length: int) -> bytes:
    raise AssertionError("all packets are in memory")


def vector(target: UpdateAssembly, read: Callable[[int, int], bytes] = unread) -> F32:
    result: F32 = np.zeros(DIMENSION, dtype=np.float32)
    for segment in target.segments(read):
        segment.add_to(result)
    return result


def changed(packet: bytes, **fields: Any) -> bytes:
    return dataclasses.replace(parse_packet(packet), **fields).encode()


@given(st.permutations(range(3)), st.lists(st.integers(0, 2), max_size=5))
def test_any_order_and_any_duplicates_give_the_vector(order: list[int], again: list[int]) -> None:
    target = assembly()
    for sequence in order[:-1]:
        add(target, UPDATE.packets[sequence])
    repeated = [sequence for sequence in again if sequence != order[-1]]
    for sequence in repeated:
        add(target, UPDATE.packets[sequence])
    before = target.complete
    add(target, UPDATE.packets[order[-1]])
    assert (before, target.complete) == (False, True)
    assert target.duplicates == len(repeated)
    assert target.payload_bytes == 4 * DIMENSION
    np.testing.assert_array_equal(vector(target), DELTA)


@given(st.sets(st.integers(0, 2)))
def test_a_subset_gives_what_arrived_and_zero_elsewhere(chosen: set[int]) -> None:
    target = assembly()
    expected: F32 = np.zeros(DIMENSION, dtype=np.float32)
    for sequence in chosen:
        add(target, UPDATE.packets[sequence])
        span = slice(128 * sequence, 128 * (sequence + 1))
        expected[span] = DELTA[span]
    assert list(target.received) == sorted(chosen)
    np.testing.assert_array_equal(vector(target), expected)


def test_sparse_packets_add_up_in_any_order() -> None:
    assert len(TOP.packets) > 1
    target = assembly(TOP)
    for packet in reversed(TOP.packets):
        add(target, packet)
    expected = DELTA.copy()
    expected[np.argsort(np.abs(DELTA), kind="stable")[:10]] = 0
    np.testing.assert_array_equal(vector(target), expected)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"packet_class": pb.PACKET_CLASS_MODEL}, "class"),
        ({"run_id": RUN + 1}, "run"),
        ({"device": 1}, "device"),
        ({"task_index": 1}, "task"),
        ({"update_id": 2}, "update"),
        ({"base_version": 4}, "base version"),
        ({"packets": 4}, "packet count"),
        ({"first": DIMENSION - 127}, "coordinates up to 301"),
    ],
)
def test_a_foreign_packet_is_refused_by_the_name_of_the_field(
    fields: dict[str, int], named: str
) -> None:
    target = assembly()
    with pytest.raises(PacketError, match=named):
        add(target, changed(UPDATE.packets[0], **fields))
    assert len(target.received) == 0
    assert target.timer.mark_s is None


def test_more_bytes_than_announced_are_refused() -> None:
    header = pb.UploadHeader()
    header.CopyFrom(UPDATE.header)
    header.payload_bytes = 1023
    target = UpdateAssembly(header, BASE, device=0, run_id=RUN, now_s=5.0)
    add(target, UPDATE.packets[0])
    with pytest.raises(PacketError, match="announced total of 1023 bytes"):
        add(target, UPDATE.packets[1])
    assert target.payload_bytes == 512


def test_a_payload_that_its_codec_did_not_write_is_refused() -> None:
    nan = np.full(128, np.nan, dtype="<f4").tobytes()
    for payload, reason in ((bytes(511), "511 payload bytes"), (nan, "not finite")):
        target = assembly()
        add(target, changed(UPDATE.packets[0], payload=payload))
        with pytest.raises(CodecError, match=reason):
            target.segments(unread)


def test_packets_that_memory_has_no_room_for_are_read_back() -> None:
    target = assembly()
    for sequence in range(3):
        add(target, UPDATE.packets[sequence], in_memory=sequence == 1)
    assert target.memory_bytes == len(UPDATE.packets[1])
    asked = []

    def read(position: int, length: int) -> bytes:
        asked.append((position, length))
        return UPDATE.packets[position]

    np.testing.assert_array_equal(vector(target, read), DELTA)
    assert asked == [(0, len(UPDATE.packets[0])), (2, len(UPDATE.packets[2]))]


def test_arrival_times_leave_duplicates_out() -> None:
    target = assembly()
    add(target, UPDATE.packets[0], 6.0)
    add(target, UPDATE.packets[1], 7.0)
    add(target, UPDATE.packets[0], 8.0)
    assert (target.started_s, target.timer.mark_s, target.timer.last_s) == (5.0, 6.0, 7.0)
    assert target.timer.bytes_after_mark == len(UPDATE.packets[1])


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("session", 99, True),
        ("update_id", 2, False),
        ("base_version", 4, False),
        ("packets", 4, False),
        ("content", 1, False),
        ("payload_bytes", 1199, False),
        ("samples", 3, False),
    ],
)
def test_a_resumption_is_the_same_update_in_any_session(field: str, value: int, same: bool) -> None:
    header = pb.UploadHeader()
    header.CopyFrom(UPDATE.header)
    setattr(header, field, value)
    assert assembly().resumed_by(header) is same
