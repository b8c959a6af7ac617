"""Mixed resolution: levels of high entries, one bit for the others, sizes, hostile payloads."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto.codec_cases import MIB, VECTORS, encode, rebuild

from fadelab_proto.codecs.base import F32, CodecError, Encoding
from fadelab_proto.codecs.mixed_resolution import MixedResolution

THRESHOLDS = st.sampled_from([0.01, 0.05, 0.1, 0.4, 0.9])


def reference(vector: F32, threshold: float, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what the paper's formulas give, in double precision, and which entries are high."""
    magnitudes = np.abs(vector.astype(np.float64))
    step = np.float32(magnitudes.max() / (2**bits - 1))
    if float(step) * (2**bits - 1) < magnitudes.max():
        step = np.nextafter(step, np.float32(np.inf))
    high = magnitudes >= np.float32(threshold * magnitudes.max())
    levels = np.rint(magnitudes / step) * np.float64(step)
    low = levels[high].min() / 2
    return np.where(high, levels, low) * np.where(np.signbit(vector), -1, 1), high


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.4])
@pytest.mark.parametrize("bits", [1, 2, 4, 7, 10, 16])
@pytest.mark.parametrize("limit", [100, 1200, MIB])
def test_it_is_what_the_paper_says(threshold: float, bits: int, limit: int) -> None:
    vector = np.random.default_rng(bits).laplace(size=20_000).astype(np.float32)
    encoding = encode(MixedResolution(threshold, bits), vector, limit)
    expected, high = reference(vector, threshold, bits)
    assert np.allclose(rebuild(encoding.chunks, len(vector)), expected, rtol=1e-6)
    assert encoding.nominal_bits == (~high).sum() + high.sum() * (bits + 1) + 32


@settings(deadline=None, max_examples=200)
@given(VECTORS, THRESHOLDS, st.integers(1, 16), st.integers(60, 300))
def test_high_entries_are_within_half_a_level(
    vector: F32, threshold: float, bits: int, limit: int
) -> None:
    rebuilt = rebuild(encode(MixedResolution(threshold, bits), vector, limit).chunks, len(vector))
    magnitudes = np.abs(vector.astype(np.float64))
    largest = magnitudes.max()
    step = largest / (2**bits - 1)
    high = magnitudes >= threshold * largest * (1 + 1e-6)
    error = np.abs(rebuilt.astype(np.float64) - vector)
    assert (error[high] <= step / 2 * (1 + 1e-6) + largest * 1e-6 + 1e-44).all()
    others = np.abs(rebuilt[magnitudes < threshold * largest * (1 - 1e-6)])
    assert len(np.unique(others)) <= 1
    assert (others <= np.abs(rebuilt[magnitudes == largest]).max() / 2).all()
    assert (np.signbit(rebuilt) == np.signbit(vector))[rebuilt != 0].all()


def test_zeros_single_entries_and_nothing() -> None:
    codec = MixedResolution(0.1, 4)
    assert not rebuild(encode(codec, np.zeros(100, np.float32)).chunks, 100).any()
    assert encode(codec, np.zeros(0, np.float32)) == Encoding((), 0)
    one = np.zeros(3_000_000, np.float32)
    one[2_345_678] = -5.0
    rebuilt = rebuild(encode(codec, one).chunks, len(one))
    assert rebuilt[2_345_678] == -5.0
    # Zeros have one bit too, which says plus or minus half of the smallest high magnitude.
    assert np.unique(np.delete(rebuilt, 2_345_678)).tolist() == [2.5]


@pytest.mark.parametrize("scale", [1e-45, 1e-40, 3.4e38])
@pytest.mark.parametrize("bits", [1, 5, 16])
def test_extreme_magnitudes(scale: float, bits: int) -> None:
    vector = (np.array([1.0, -1.0, 0.5, 0.01]) * scale).astype(np.float32)
    rebuilt = rebuild(encode(MixedResolution(0.9, bits), vector).chunks, 4)
    assert np.allclose(rebuilt[:2], vector[:2], rtol=1e-6)


def test_dense_regions_get_more_packets() -> None:
    vector = np.full(20_000, 0.001, dtype=np.float32)
    vector[5000:6000] = np.linspace(0.5, 1, 1000)
    encoding = encode(MixedResolution(0.1, 8), vector, 400)
    payload = sum(len(chunk.payload) for chunk in encoding.chunks)
    assert payload < 1.2 * encoding.nominal_bits / 8 + 20 * len(encoding.chunks)
    assert np.allclose(rebuild(encoding.chunks, 20_000)[5000:6000], vector[5000:6000], atol=1 / 510)


@pytest.mark.parametrize("limit", [1200, MIB])
@pytest.mark.parametrize(("threshold", "bits"), [(0.1, 4), (0.3, 8), (0.5, 2)])
def test_estimates_are_close_for_normal_entries(threshold: float, bits: int, limit: int) -> None:
    vector = np.random.default_rng(1).standard_normal(200_000).astype(np.float32)
    codec = MixedResolution(threshold, bits)
    encoding = encode(codec, vector, limit)
    estimate = codec.estimate_bits(len(vector), max_payload_bytes=limit)
    assert estimate == pytest.approx(encoding.coded_bits, rel=0.1)
    assert codec.nominal_bits(len(vector)) == pytest.approx(encoding.nominal_bits, rel=0.1)
    heavy = np.random.default_rng(1).standard_t(3, 200_000).astype(np.float32)
    assert encode(codec, heavy, limit).coded_bits < estimate


def test_heavy_tails_are_worse_than_sending_nothing() -> None:
    vector = np.random.default_rng(3).standard_t(2, 100_000).astype(np.float32)
    rebuilt = rebuild(encode(MixedResolution(0.1, 8), vector).chunks, len(vector))
    assert np.sum((rebuilt - vector) ** 2) > np.sum(vector**2)


@pytest.mark.parametrize(
    ("threshold", "bits", "words"),
    [
        (0.0, 4, "threshold is 0.0"),
        (1.0, 4, "threshold is 1.0"),
        (float("nan"), 4, "threshold is nan"),
        (0.1, 0, "bits is 0"),
        (0.1, 17, "bits is 17"),
    ],
)
def test_impossible_parameters_are_refused(threshold: float, bits: int, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        MixedResolution(threshold, bits)


def test_packets_that_are_too_small_are_refused() -> None:
    with pytest.raises(CodecError, match="max_payload_bytes is 15"):
        encode(MixedResolution(0.1, 4), np.ones(9, np.float32), 15)


def try_to_decode(payload: bytes, count: int) -> None:
    try:
        segment = MixedResolution.decode(payload, first=0, count=count)
    except CodecError:
        return
    assert len(segment.values) == count <= 8 * len(payload)
    assert np.isfinite(segment.values).all()


@settings(max_examples=400, deadline=None)
@given(
    head=st.tuples(
        st.integers(0, 20),
        st.floats(width=32),
        st.floats(width=32),
        st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1)),
    ),
    body=st.binary(max_size=100),
    count=st.one_of(st.integers(1, 300), st.integers(1, 2**32 - 1)),
)
def test_hostile_payloads_are_refused_or_give_finite_entries(
    head: tuple[int, float, float, int], body: bytes, count: int
) -> None:
    try_to_decode(struct.pack("<BffI", *head) + body, count)
    try_to_decode(body, count)
