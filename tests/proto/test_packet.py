import dataclasses

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import (
    CLASS_OFFSET,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Packet,
    PacketError,
    class_name,
    parse_packet,
)


def u(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    total = draw(st.integers(1, 0xFFFF))
    return Packet(
        packet_class=draw(st.sampled_from([pb.PACKET_CLASS_UPDATE, pb.PACKET_CLASS_MODEL])),
        codec=draw(st.sampled_from([pb.CODEC_DENSE_F32, pb.CODEC_SPARSE])),
        task_index=draw(u(8)),
        device=draw(u(16)),
        run_id=draw(u(32)),
        update_id=draw(u(32)),
        base_version=draw(u(32)),
        first=draw(u(32)),
        count=draw(st.integers(1, 2**32 - 1)),
        sequence=draw(st.integers(0, total - 1)),
        packets=total,
        payload=draw(st.binary(max_size=300)),
    )


@given(packets())
def test_round_trip_keeps_every_field(packet: Packet) -> None:
    data = packet.encode()
    parsed = parse_packet(data)
    assert len(data) == HEADER_BYTES + len(packet.payload)
    assert dataclasses.replace(parsed, payload=bytes(parsed.payload)) == packet


@given(packets(), st.data())
def test_a_flipped_bit_is_refused(packet: Packet, data: st.DataObject) -> None:
    damaged = bytearray(packet.encode())
    position = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[position // 8] ^= 1 << position % 8
    with pytest.raises(PacketError):
        parse_packet(bytes(damaged))


@given(packets(), st.data())
def test_a_truncated_or_lengthened_packet_is_refused(packet: Packet, data: st.DataObject) -> None:
    whole = packet.encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PacketError):
        parse_packet(whole[:cut])
    with pytest.raises(PacketError):
        parse_packet(whole + b"\0")


@given(packets())
def test_the_class_is_told_without_parsing(packet: Packet) -> None:
    assert packet.encode()[CLASS_OFFSET] == packet.packet_class


def test_classes_have_names() -> None:
    numbers = (pb.PACKET_CLASS_UPDATE, pb.PACKET_CLASS_SIGN, pb.PACKET_CLASS_MODULUS)
    assert [class_name(number) for number in numbers] == ["update", "sign", "modulus"]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PacketError):
        parse_packet(data)


def test_a_huge_declared_payload_is_refused_before_the_checksum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packet = Packet(
        packet_class=pb.PACKET_CLASS_UPDATE,
        codec=pb.CODEC_DENSE_F32,
        task_index=0,
        device=0,
        run_id=1,
        update_id=1,
        base_version=0,
        first=0,
        count=1,
        sequence=0,
        packets=1,
        payload=b"1234",
    )
    data = bytearray(packet.encode())
    data[32:36] = (0xFFFFFFFF).to_bytes(4, "little")
    monkeypatch.setattr("fadelab_proto.packet.checksum", lambda *_: pytest.fail("checksum read"))
    with pytest.raises(PacketError, match="declared payload of 4294967295 bytes"):
        parse_packet(bytes(data))
    oversized = dataclasses.replace(packet, payload=bytes(MAX_PAYLOAD_BYTES + 1))
    with pytest.raises(PacketError, match="exceeds the limit"):
        oversized.encode()


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("packet_class", 0, "class 0 is unknown"),
        ("packet_class", 200, "class 200 is unknown"),
        ("codec", 99, "codec 99 is unknown"),
        ("count", 0, "covers no coordinate"),
        ("sequence", 5, "sequence number 5 of 5"),
    ],
)
def test_contradictions_are_named(field: str, value: int, sentence: str) -> None:
    good = Packet(1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 5, b"1234")
    with pytest.raises(PacketError, match=sentence):
        parse_packet(dataclasses.replace(good, **{field: value}).encode())


@pytest.mark.parametrize("implementation", ["c", "python"])
@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 100_001])
def test_a_payload_is_summed_the_same_whatever_its_size(
    size: int, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_crc32c, "implementation", implementation)
    payload = bytes(number % 251 for number in range(size))
    packet = Packet(
        packet_class=pb.PACKET_CLASS_UPDATE,
        codec=pb.CODEC_DENSE_F32,
        task_index=0,
        device=1,
        run_id=2,
        update_id=3,
        base_version=4,
        first=0,
        count=1,
        sequence=0,
        packets=1,
        payload=payload,
    )
    data = packet.encode()
    assert google_crc32c.value(data[:36] + payload).to_bytes(4, "little") == data[36:40]
    assert parse_packet(data).payload == payload
    for at in {40, 40 + size // 2, len(data) - 1} if size else set():
        spoiled = bytearray(data)
        spoiled[at] ^= 1
        with pytest.raises(PacketError, match="CRC-32C"):
            parse_packet(spoiled)
