"""The lossless stage: what goes in comes out, bombs do not go off, missing packages are named."""

import importlib.util
import struct
import sys
import tracemalloc
import zlib
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import DenseF32
from fadelab_proto.codecs.base import F32, CodecError, Encoding
from fadelab_proto.codecs.lossless import Lossless, StageName
from fadelab_proto.packet import MAX_PAYLOAD_BYTES

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = hnp.arrays(np.float32, st.integers(1, 300), elements=FLOATS)


def stage_of(name: StageName, package: str) -> object:
    missing = importlib.util.find_spec(package) is None
    return pytest.param(
        name, marks=pytest.mark.skipif(missing, reason=f"the package {package} is not installed")
    )


STAGES = [
    pytest.param("zlib"),
    stage_of("zstd", "zstandard"),
]
NUMBERS = {"zlib": 1, "zstd": 2}


def encode(codec: Lossless, vector: F32, limit: int = 1 << 20) -> Encoding:
    generator = np.random.default_rng(1)
    encoding = codec.encode(vector, max_payload_bytes=limit, generator=generator)
    assert all(len(chunk.payload) <= limit for chunk in encoding.chunks)
    assert all(chunk.codec == pb.CODEC_LOSSLESS for chunk in encoding.chunks)
    return encoding


def decode(encoding: Encoding, dimension: int) -> F32:
    out = np.full(dimension, np.nan, dtype=np.float32)
    for chunk in encoding.chunks:
        Lossless.decode(chunk.payload, first=chunk.first, count=chunk.count).copy_to(out)
    return out


def head(stage: int, size: int, number: int = pb.CODEC_DENSE_F32) -> bytes:
    return struct.pack("<BBI", number, stage, size)


@pytest.mark.parametrize("stage", STAGES)
@settings(deadline=None, max_examples=50)
@given(vector=VECTORS, limit=st.integers(4, 200).map(lambda entries: 6 + 4 * entries))
def test_what_goes_in_comes_out(stage: StageName, vector: F32, limit: int) -> None:
    codec = Lossless(DenseF32(), stage)
    encoding = encode(codec, vector, limit)
    assert np.array_equal(decode(encoding, len(vector)), vector)
    assert encoding.nominal_bits == codec.nominal_bits(len(vector)) == 32 * len(vector)
    assert encoding.coded_bits <= codec.estimate_bits(len(vector), max_payload_bytes=limit)


@pytest.mark.parametrize("stage", STAGES)
def test_repetitive_payloads_get_shorter_and_others_are_stored(stage: StageName) -> None:
    codec = Lossless(DenseF32(), stage)
    zeros = np.zeros(500_000, np.float32)
    encoding = encode(codec, zeros)
    assert len(encoding.chunks) == 2
    assert encoding.coded_bits < 8 * 20_000
    assert np.array_equal(decode(encoding, len(zeros)), zeros)
    noise = np.random.default_rng(1).integers(0, 0x7F000000, 1000, dtype=np.uint32)
    (chunk,) = encode(codec, noise.view(np.float32)).chunks
    assert chunk.payload[:6] == head(0, 4000)
    assert len(chunk.payload) == 6 + 4000


def test_packet_classes_are_kept() -> None:
    class Signs(DenseF32):
        def encode(self, vector: F32, **options: object) -> Encoding:
            return Encoding(
                (codecs.Chunk(0, 1, bytes(4), DenseF32.NUMBER, pb.PACKET_CLASS_SIGN),), 1
            )

    (chunk,) = encode(Lossless(Signs()), np.zeros(1, np.float32)).chunks
    assert chunk.packet_class == pb.PACKET_CLASS_SIGN


def test_stages_are_not_nested() -> None:
    with pytest.raises(CodecError, match="cannot be applied to another"):
        Lossless(Lossless(DenseF32()))
    inner = head(0, 4) + bytes(4)
    with pytest.raises(CodecError, match="cannot hold another"):
        Lossless.decode(head(0, len(inner), pb.CODEC_LOSSLESS) + inner, first=0, count=1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(CodecError, match="the package zstandard is not installed"):
        Lossless(DenseF32(), "zstd")
    with pytest.raises(CodecError, match="the package zstandard is not installed"):
        Lossless.decode(head(NUMBERS["zstd"], 4) + bytes(40), first=0, count=1)


def test_unknown_stages_are_refused() -> None:
    with pytest.raises(CodecError, match='stage is "lz77"'):
        Lossless(DenseF32(), "lz77")  # type: ignore[arg-type]


def compress(stage: str, data: bytes) -> bytes:
    if stage == "zlib":
        return zlib.compress(data, 9)
    coded: bytes = import_module("zstandard").ZstdCompressor(level=3).compress(data)
    return coded


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("declared", "real"),
    [(MAX_PAYLOAD_BYTES, 1 << 25), (4000, 1 << 25), (MAX_PAYLOAD_BYTES, 4000), (0, 4), (4, 0)],
)
def test_lengths_that_are_lies_are_refused(stage: StageName, declared: int, real: int) -> None:
    payload = head(NUMBERS[stage], declared) + compress(stage, bytes(real))
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            Lossless.decode(payload, first=0, count=declared // 4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MAX_PAYLOAD_BYTES


def test_lengths_beyond_the_limit_are_refused() -> None:
    payload = head(1, MAX_PAYLOAD_BYTES + 4) + zlib.compress(bytes(MAX_PAYLOAD_BYTES + 4))
    with pytest.raises(CodecError, match="exceeds the limit"):
        Lossless.decode(payload, first=0, count=MAX_PAYLOAD_BYTES // 4 + 1)


@pytest.mark.skipif(
    importlib.util.find_spec("zstandard") is None, reason="the package zstandard is not installed"
)
def test_zstandard_frames_that_hide_their_length_are_refused() -> None:
    zstandard = import_module("zstandard")
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 25))
    with pytest.raises(CodecError, match="not a Zstandard frame of 4000 bytes"):
        Lossless.decode(head(2, 4000) + frame, first=0, count=1000)


@pytest.mark.parametrize("stage", STAGES)
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damaged_payloads_are_refused_or_give_finite_entries(
    stage: StageName, data: st.DataObject
) -> None:
    vector = np.repeat(np.arange(40, dtype=np.float32), 5)
    (chunk,) = encode(Lossless(DenseF32(), stage), vector).chunks
    assert chunk.payload[1] == NUMBERS[stage]
    damaged = bytearray(chunk.payload)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, 8 * len(damaged) - 1))
        damaged[position // 8] ^= 1 << position % 8
    try:
        segment = Lossless.decode(bytes(damaged), first=0, count=len(vector))
    except CodecError:
        return
    assert len(segment.values) == len(vector)
    assert np.isfinite(segment.values).all()


@pytest.mark.parametrize("stage", STAGES)
def test_cut_and_lengthened_payloads_are_refused(stage: StageName) -> None:
    vector = np.repeat(np.arange(40, dtype=np.float32), 5)
    (chunk,) = encode(Lossless(DenseF32(), stage), vector).chunks
    for payload in (*(chunk.payload[:cut] for cut in range(60)), chunk.payload + b"\0"):
        with pytest.raises(CodecError):
            Lossless.decode(payload, first=0, count=len(vector))


@settings(max_examples=300, deadline=None)
@given(
    number=st.integers(0, 12),
    stage=st.integers(0, 5),
    size=st.one_of(st.integers(0, 200), st.integers(0, 2**32 - 1)),
    body=st.binary(max_size=200),
    count=st.one_of(st.integers(1, 100), st.integers(1, 2**32 - 1)),
)
def test_hostile_payloads_are_refused_or_give_entries_in_range(
    number: int, stage: int, size: int, body: bytes, count: int
) -> None:
    for payload in (head(stage, size, number) + body, head(0, len(body), number) + body, body):
        try:
            segment = Lossless.decode(payload, first=0, count=count)
        except CodecError:
            continue
        assert len(segment.values) <= count


def test_packets_that_are_too_small_are_refused() -> None:
    with pytest.raises(CodecError, match="max_payload_bytes is 6"):
        encode(Lossless(DenseF32()), np.ones(3, np.float32), 6)
