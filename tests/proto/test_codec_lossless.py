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
from tests.proto.codec_cases import VECTORS, decode, encode, rebuild

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import DenseF32, Groups, SignModulus, Uniform
from fadelab_proto.codecs.base import F32, CodecError, Encoding
from fadelab_proto.codecs.lossless import Lossless, StageName
from fadelab_proto.packet import MAX_PAYLOAD_BYTES


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


def head(stage: int, size: int, number: int = pb.CODEC_DENSE_F32, *, rearranged: int = 0) -> bytes:
    return struct.pack("<BBBI", number, stage, rearranged, size)


@pytest.mark.parametrize("stage", STAGES)
@settings(deadline=None, max_examples=50)
@given(vector=VECTORS, limit=st.integers(4, 200).map(lambda entries: 7 + 4 * entries))
def test_what_goes_in_comes_out(stage: StageName, vector: F32, limit: int) -> None:
    codec = Lossless(DenseF32(), stage)
    encoding = encode(codec, vector, limit)
    assert np.array_equal(rebuild(encoding.chunks, len(vector)), vector)
    assert encoding.nominal_bits == codec.nominal_bits(len(vector)) == 32 * len(vector)
    assert encoding.coded_bits <= codec.estimate_bits(len(vector), max_payload_bytes=limit)


@pytest.mark.parametrize("stage", STAGES)
def test_repetitive_payloads_get_shorter_and_others_are_stored(stage: StageName) -> None:
    codec = Lossless(DenseF32(), stage)
    zeros = np.zeros(500_000, np.float32)
    encoding = encode(codec, zeros)
    assert len(encoding.chunks) == 2
    assert encoding.coded_bits < 8 * 20_000
    assert np.array_equal(rebuild(encoding.chunks, len(zeros)), zeros)
    noise = np.random.default_rng(1).integers(0, 0x7F000000, 1000, dtype=np.uint32)
    (chunk,) = encode(codec, noise.view(np.float32)).chunks
    assert chunk.payload[:7] == head(0, 4000)
    assert len(chunk.payload) == 7 + 4000


def order_0_bits(levels: np.ndarray) -> float:
    """Return what so many independent levels take at least."""
    shares = np.unique(levels, return_counts=True)[1] / len(levels)
    return float(-len(levels) * (shares * np.log2(shares)).sum())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("groups", [Groups(), Groups(block=4096)])
@pytest.mark.parametrize("bits", [4, 6, 8, 11])
def test_levels_take_little_more_than_their_entropy(
    bits: int, groups: Groups, stage: StageName
) -> None:
    vector = np.random.default_rng(1).laplace(size=400_000).astype(np.float32)
    inner = Uniform(bits, groups)
    plain = rebuild(encode(inner, vector).chunks, len(vector))
    encoding = encode(Lossless(inner, stage), vector)
    assert np.array_equal(rebuild(encoding.chunks, len(vector)), plain)
    peaks = np.maximum.reduceat(np.abs(vector), groups.starts(len(vector)))
    steps = np.repeat(peaks, groups.block or len(vector))[: len(vector)] / (2 ** (bits - 1) - 1)
    entropy = order_0_bits(np.rint(plain / steps))
    grids = 64 * len(peaks)
    assert encoding.coded_bits < 1.06 * entropy + grids + 8 * 300


@pytest.mark.parametrize("stage", STAGES)
def test_signs_and_magnitudes_are_compressed_in_packets_of_their_own(stage: StageName) -> None:
    vector = np.random.default_rng(1).laplace(size=50_000).astype(np.float32)
    inner = encode(SignModulus(6), vector).chunks
    coded = encode(Lossless(SignModulus(6), stage), vector).chunks
    assert [chunk.packet_class for chunk in coded] == [chunk.packet_class for chunk in inner]
    for one, other in zip(inner, coded, strict=True):
        assert np.array_equal(decode(one).values, decode(other).values)
    assert len(coded[1].payload) < 0.75 * len(inner[1].payload)


def test_only_codes_are_rearranged() -> None:
    vector = np.repeat(np.arange(40, dtype=np.float32), 5)
    (chunk,) = encode(Lossless(Uniform(6)), vector).chunks
    assert chunk.payload[2] == 1
    (other,) = encode(Lossless(DenseF32()), vector).chunks
    assert other.payload[2] == 0
    wrong = bytes([pb.CODEC_DENSE_F32]) + chunk.payload[1:]
    with pytest.raises(CodecError, match="format 1 hold no codes"):
        Lossless.decode(wrong, first=0, count=chunk.count)
    with pytest.raises(CodecError, match="arrangement 2"):
        Lossless.decode(head(1, 9, rearranged=2) + bytes(9), first=0, count=9)
    with pytest.raises(CodecError, match="10 codes of 6 bits"):
        Lossless.decode(chunk.payload, first=0, count=10)


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
    with pytest.raises(CodecError, match="max_payload_bytes is 7"):
        encode(Lossless(DenseF32()), np.ones(3, np.float32), 7)
