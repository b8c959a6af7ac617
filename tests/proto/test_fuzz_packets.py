"""Damaged packets and messages are refused by name or mean something; nothing else happens.

``FADELAB_FUZZ`` is how many packets; a million of them take minutes (``make fuzz``).
"""

import os
import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from tests.proto.codec_cases import CASES, check_segment
from tests.proto.mutations import Mutator, all_packets, example_packets, long_packets, mutants

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import CodecError
from fadelab_proto.packet import MAX_PAYLOAD_BYTES, Packet, PacketError, parse_packet
from fadelab_proto.wire import FramingError, frame_packet, parse_model_part, parse_upload_part

PACKETS = int(os.environ.get("FADELAB_FUZZ", "20000"))
MEMORY_CHECKED = 40
"""One packet in so many is decoded under the eyes of tracemalloc, which takes ten times as long."""


def outcome(data: bytes) -> str:
    """Return what became of a packet; anything but a value or a refusal is raised."""
    try:
        packet = parse_packet(data)
    except PacketError:
        return "no packet"
    try:
        segment = codecs.decode(
            packet.codec, packet.payload, first=packet.first, count=packet.count
        )
    except CodecError:
        return "no payload"
    assert segment.first == packet.first
    check_segment(segment, packet.count)
    return "decoded"


def most_bytes(data: bytes) -> int:
    """Return what decoding may allocate: in proportion to the packet, or to what it compresses."""
    unpacked = len(data)
    if len(data) > 4 and data[4] == pb.CODEC_LOSSLESS:
        unpacked = min(MAX_PAYLOAD_BYTES, max(len(data), int.from_bytes(data[43:47], "little")))
    return 200_000 + 300 * unpacked


@pytest.mark.parametrize("name", CASES)
def test_no_packet_crashes_a_decoder(name: str) -> None:
    seed = list(CASES).index(name)
    originals = example_packets(CASES[name])
    fuzz(seed, originals, PACKETS // len(CASES))


def test_no_long_packet_crashes_a_decoder() -> None:
    fuzz(77, long_packets(), PACKETS // 50)


def fuzz(seed: int, originals: list[Packet], number: int) -> None:
    """Decode so many damaged packets; all kinds of ends are reached."""
    assert {outcome(packet.encode()) for packet in originals} == {"decoded"}
    counts: Counter[str] = Counter()
    for turn, data in enumerate(mutants(seed, originals, number)):
        if turn % MEMORY_CHECKED:
            counts[outcome(data)] += 1
            continue
        tracemalloc.start()
        try:
            counts[outcome(data)] += 1
            assert tracemalloc.get_traced_memory()[1] <= most_bytes(data)
        finally:
            tracemalloc.stop()
    # The damage is neither harmless nor always found at once.
    assert min(counts[end] for end in ("no packet", "no payload", "decoded")) > number / 50


def test_no_message_crashes_a_parser() -> None:
    draw = random.Random(5)
    packets = all_packets()
    mutator = Mutator(draw, packets)
    header = pb.UploadHeader(session=9, update_id=3, packets=2, payload_bytes=77, content=2**31)
    info = pb.ModelInfo(version=4, dimension=10)
    wholes = [
        *(frame_packet(packet.encode()) for packet in packets[::10]),
        pb.UploadPart(header=header).SerializeToString(),
        pb.UploadPart(close=pb.UploadClose()).SerializeToString(),
        pb.ModelPart(info=info).SerializeToString(),
    ]
    refused = 0
    for _ in range(PACKETS // 2):
        message = mutator.injured(draw.choice(wholes))
        for parse in (parse_upload_part, parse_model_part):
            try:
                part = parse(message)
            except FramingError:
                refused += 1
                continue
            if isinstance(part, memoryview):
                outcome(bytes(part))
    assert 0.2 * PACKETS < refused < PACKETS


def test_what_one_bit_says_is_not_allocated_thirty_times() -> None:
    """The longest packets of the shortest codes: the bound on memory is not only that of tests."""
    bits = np.zeros(MAX_PAYLOAD_BYTES, dtype=np.uint8).tobytes()
    tracemalloc.start()
    try:
        segment = codecs.decode(pb.CODEC_SIGN, bits, first=0, count=8 * len(bits))
        assert len(segment.values) == 8 * len(bits)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(bits)
    finally:
        tracemalloc.stop()
