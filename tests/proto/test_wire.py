import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.ranges import RangeSet
from fadelab_proto.wire import (
    FramingError,
    frame_packet,
    frame_whole_upload,
    parse_model_part,
    parse_upload_part,
    parse_whole_upload,
    serialize_part,
)


@given(st.binary(max_size=70_000))
def test_framed_packets_are_protobuf_messages(packet: bytes) -> None:
    framed = frame_packet(packet)
    assert framed == pb.UploadPart(packet=packet).SerializeToString()
    assert pb.ModelPart.FromString(framed).packet == packet
    view = parse_upload_part(framed)
    assert isinstance(view, memoryview)
    assert view == packet


@given(st.integers(0, 2**64 - 1), st.binary(max_size=70_000))
def test_whole_uploads_are_protobuf_messages(session: int, packet: bytes) -> None:
    header = pb.UploadHeader(session=session, packets=1, samples=3)
    framed = frame_whole_upload(header, packet)
    message = pb.WholeUpload.FromString(framed)
    assert (message.header, message.packet) == (header, packet)
    assert parse_whole_upload(framed) == (header, packet)


@given(st.data())
def test_whole_uploads_that_are_cut_or_injured_are_refused_or_read(data: st.DataObject) -> None:
    framed = frame_whole_upload(pb.UploadHeader(session=9, packets=1), b"x" * 200)
    cut = framed[: data.draw(st.integers(0, len(framed) - 1))]
    with pytest.raises(FramingError):
        parse_whole_upload(cut)
    injured = bytearray(framed)
    injured[data.draw(st.integers(0, 30))] = data.draw(st.integers(0, 255))
    try:
        _, packet = parse_whole_upload(bytes(injured))
    except FramingError:
        return
    assert len(packet) <= len(framed)


def test_heads_are_told_from_packets() -> None:
    header = pb.UploadHeader(session=9, update_id=3, packets=2)
    assert parse_upload_part(serialize_part(pb.UploadPart(header=header))) == header
    query = pb.UploadQuery(number=7)
    assert parse_upload_part(serialize_part(pb.UploadPart(query=query))) == query
    close = pb.UploadClose()
    assert parse_upload_part(serialize_part(pb.UploadPart(close=close))) == close
    info = pb.ModelInfo(version=4, dimension=10)
    assert parse_model_part(serialize_part(pb.ModelPart(info=info))) == info


@given(st.binary(max_size=60))
def test_arbitrary_bytes_never_crash(data: bytes) -> None:
    for parse in (parse_upload_part, parse_model_part, parse_whole_upload):
        try:
            part = parse(data)
        except FramingError:
            continue
        known = (
            memoryview | pb.UploadHeader | pb.UploadQuery | pb.UploadClose | pb.ModelInfo | tuple
        )
        assert isinstance(part, known)


def test_a_wrong_declared_length_is_refused() -> None:
    framed = frame_packet(b"x" * 300)
    for broken in (framed[:-1], framed + b"y", b"\x12\xff\xff\xff\xff\xff\x01"):
        with pytest.raises(FramingError):
            parse_upload_part(broken)


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_exactly_the_given_numbers(numbers: set[int]) -> None:
    ranges = RangeSet(numbers).messages()
    named = [n for r in ranges for n in range(r.first, r.last + 1)]
    assert named == sorted(numbers)
    assert all(a.last + 1 < b.first for a, b in itertools.pairwise(ranges))
