"""What the codecs' tests share: every codec, vectors of all kinds, encoding and decoding."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fadelab_proto import codecs
from fadelab_proto.codecs import (
    Aquila,
    Chunk,
    Codec,
    DenseF16,
    DenseF32,
    EmqAdaptive,
    EmqFixed,
    Encoding,
    Groups,
    Laq,
    Lossless,
    MixedResolution,
    Part,
    Qsgd,
    Segment,
    SignModulus,
    SignOnly,
    TopK,
    TopQ,
    Uniform,
)
from fadelab_proto.codecs.base import F32

HUGE = float(np.finfo(np.float32).max)
DENORMAL = float(np.finfo(np.float32).smallest_subnormal)
MIB = 1 << 20

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = hnp.arrays(np.float32, st.integers(1, 400), elements=finite)
_TINY = st.integers(-700, 700).map(lambda units: units * DENORMAL)
EXTREME_VECTORS = st.one_of(
    VECTORS,
    hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-1, 1, width=32)),
    hnp.arrays(np.float32, st.integers(1, 40), elements=_TINY),
    hnp.arrays(
        np.float32, st.integers(1, 40), elements=st.sampled_from([0, HUGE, -HUGE, DENORMAL])
    ),
)
"""Ordinary ones, denormal ones, and those at the ends of float32."""


@dataclass(frozen=True)
class Case:
    """One codec with what it promises."""

    codec: Codec
    largest: float = HUGE
    """Magnitudes that it takes, for vectors of any length."""
    unbiased: bool = False
    """Whether what it keeps is right on average."""
    keeps_all: bool = True
    """Whether every entry is written."""


CASES = {
    "float32": Case(DenseF32(), unbiased=True),
    "float16": Case(DenseF16(), largest=65504.0),
    "uniform 1": Case(Uniform(1), largest=HUGE / 2, unbiased=True),
    "uniform 4": Case(Uniform(4), unbiased=True),
    # On their way, sums of planes may be beyond the last level.
    "uniform 5, planes": Case(Uniform(5, order="planes"), largest=HUGE / 2, unbiased=True),
    "uniform 7, blocks": Case(Uniform(7, Groups(block=50)), unbiased=True),
    "uniform 13": Case(Uniform(13), unbiased=True),
    # A norm may be 1000 times the largest entry.
    "qsgd 4": Case(Qsgd(4), largest=HUGE / 2000, unbiased=True),
    "laq 4": Case(Laq(4)),
    "aquila": Case(Aquila(), largest=HUGE / 2),
    "emq": Case(EmqFixed(4, 3)),
    "emq, unbiased": Case(EmqFixed(4, 3, "stochastic"), unbiased=True),
    "emq adaptive": Case(EmqAdaptive(5, 6)),
    "emq adaptive, unbiased": Case(EmqAdaptive(5, 6, "stochastic"), unbiased=True),
    "mixed resolution": Case(MixedResolution(0.1, 4)),
    "sign and modulus 4": Case(SignModulus(4), unbiased=True),
    "sign and modulus 8, blocks": Case(SignModulus(8, Groups(block=50)), unbiased=True),
    "sign": Case(SignOnly()),
    "top 40": Case(TopK(40), unbiased=True, keeps_all=False),
    "top 40, paper": Case(TopK(40, DenseF32(), "paper"), unbiased=True, keeps_all=False),
    "top 40 of 4 bits": Case(TopK(40, Uniform(4)), unbiased=True, keeps_all=False),
    "top 40 of EMQ": Case(TopK(40, EmqFixed(4, 3)), keeps_all=False),
    "top q": Case(TopQ(0.1, 4), keeps_all=False),
    "zlib of float32": Case(Lossless(DenseF32()), unbiased=True),
    "zlib of uniform 6": Case(Lossless(Uniform(6)), unbiased=True),
    "zlib of sign and modulus": Case(Lossless(SignModulus(4)), unbiased=True),
    "zlib of top 40": Case(Lossless(TopK(40)), unbiased=True, keeps_all=False),
}
if importlib.util.find_spec("zstandard"):
    CASES["zstd of uniform 11"] = Case(Lossless(Uniform(11), "zstd"), unbiased=True)


def encode(codec: Codec, vector: F32, limit: int = MIB, seed: int = 1) -> Encoding:
    """Return the code of a vector, no payload of which is longer than allowed."""
    generator = np.random.default_rng(seed)
    encoding = codec.encode(vector, max_payload_bytes=limit, generator=generator)
    assert all(len(chunk.payload) <= limit for chunk in encoding.chunks)
    return encoding


def decode(chunk: Chunk) -> Segment:
    return codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count)


def parts_of(chunks: Iterable[Chunk], dimension: int) -> dict[Part, F32]:
    """Return what packets add up to, by what their values are; 0 where there is nothing."""
    parts = {part: np.zeros(dimension, dtype=np.float32) for part in Part}
    for chunk in chunks:
        segment = decode(chunk)
        segment.add_to(parts[segment.part])
    return parts


def rebuild(chunks: Iterable[Chunk], dimension: int) -> F32:
    """Return the entries that packets add up to; a sign counts as much as its modulus."""
    parts = parts_of(chunks, dimension)
    entries: F32 = parts[Part.VALUES] + parts[Part.SIGNS] * parts[Part.MODULI]
    return entries


def check_segment(segment: Segment, count: int) -> None:
    """Hold a segment, whatever it was decoded from, against what every segment promises."""
    assert segment.values.dtype == np.float32
    assert np.isfinite(segment.values).all()
    if segment.indices is None:
        assert len(segment.values) == count
    else:
        assert len(segment.values) == len(segment.indices) > 0
        assert segment.indices[0] >= 0
        assert segment.indices[-1] < count
        assert (segment.indices[1:] > segment.indices[:-1]).all()
    assert segment.largest is None or np.abs(segment.values).max(initial=0) <= segment.largest
    if segment.part is Part.MODULI:
        assert segment.values.min(initial=0) >= 0
    if segment.part is Part.SIGNS:
        assert (np.abs(segment.values) == 1).all()
