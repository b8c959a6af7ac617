"""EMQ, fixed and adaptive: error bounds, bias, sizes, packets in any order, hostile payloads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto.codec_cases import MIB, VECTORS, encode
from tests.proto.codec_cases import rebuild as add_up

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, CodecError
from fadelab_proto.codecs.emq import Emq, EmqAdaptive, EmqFixed
from fadelab_proto.codecs.emq_choice import (
    coarsest_within_error,
    finest_within_bits,
    judge_all,
)


@st.composite
def bits(draw: st.DrawFn) -> tuple[int, int]:
    exponent_bits = draw(st.integers(1, 7))
    return exponent_bits, draw(st.integers(0, 15 - exponent_bits))


def rebuild(codec: EmqFixed | EmqAdaptive, vector: F32, limit: int = MIB, seed: int = 1) -> F32:
    chunks = encode(codec, vector, limit, seed).chunks
    assert all(chunk.codec == pb.CODEC_EMQ for chunk in chunks)
    return add_up(chunks, len(vector))


def exponent(value: float) -> int:
    return int(np.frexp(np.float64(value))[1]) - 1


def wide(vector: F32) -> np.ndarray:
    return np.abs(vector.astype(np.float64))


@settings(deadline=None, max_examples=200)
@given(VECTORS, bits())
def test_fixed_keeps_relative_accuracy(vector: F32, sizes: tuple[int, int]) -> None:
    exponent_bits, mantissa_bits = sizes
    rebuilt = rebuild(EmqFixed(exponent_bits, mantissa_bits), vector)
    error = np.abs(rebuilt.astype(np.float64) - vector)
    # If rounding carries the largest entry to the next exponent, all exponents begin there.
    top = exponent(max(wide(vector).max(), wide(rebuilt).max()))
    carried = exponent(wide(vector).max() * (1 + 2.0 ** -(mantissa_bits + 2)))
    bottom = 2.0 ** (max(top, carried) - 2**exponent_bits + 2)
    large = wide(vector) >= bottom
    assert (error[large] <= wide(vector)[large] * 2.0 ** -(mantissa_bits + 1)).all()
    assert (error[~large] <= bottom / 2).all()
    assert (np.sign(rebuilt) * np.sign(vector) >= 0).all()


@settings(deadline=None, max_examples=200)
@given(VECTORS, bits())
def test_adaptive_keeps_absolute_accuracy(vector: F32, sizes: tuple[int, int]) -> None:
    exponent_bits, mantissa_bits = sizes
    mantissa_bits = min(mantissa_bits, max(0, 2**exponent_bits - 3))
    rebuilt = rebuild(EmqAdaptive(exponent_bits, mantissa_bits), vector)
    error = np.abs(rebuilt.astype(np.float64) - vector)
    if vector.any() and exponent_bits > 1:
        assert (error <= 2.0 ** (exponent(wide(vector).max()) - mantissa_bits - 1)).all()


@settings(deadline=None)
@given(VECTORS, bits(), st.sampled_from([EmqFixed, EmqAdaptive]))
def test_stochastic_rounding_takes_one_of_the_two_neighbours(
    vector: F32, sizes: tuple[int, int], kind: type[EmqFixed | EmqAdaptive]
) -> None:
    first, second = (rebuild(kind(*sizes, "stochastic"), vector, seed=seed) for seed in (1, 2))
    assert (np.sign(first) * np.sign(vector) >= 0).all()
    assert (first[vector == 0] == 0).all()
    between = (wide(first) - wide(vector)) * (wide(second) - wide(vector))
    same = first == second
    assert (between[~same] <= 0).all()


@pytest.mark.parametrize("kind", [EmqFixed, EmqAdaptive])
@pytest.mark.parametrize(("exponent_bits", "mantissa_bits"), [(4, 3), (2, 0), (3, 4), (4, 9)])
def test_stochastic_rounding_is_unbiased(
    kind: type[EmqFixed | EmqAdaptive], exponent_bits: int, mantissa_bits: int
) -> None:
    draws, copies = 40, 500
    # From the largest, over the smallest exponent, down to deep underflow; all signs positive.
    entries = np.geomspace(1.99, 1e-4, 101, dtype=np.float32)
    vector = np.tile(entries, copies)
    codec = kind(exponent_bits, mantissa_bits, "stochastic")
    means = np.array(
        [
            rebuild(codec, vector, seed=seed).reshape(copies, -1).astype(np.float64).mean(axis=0)
            for seed in range(draws)
        ]
    )
    deviation = means.mean(axis=0) - entries
    sigma = means.std(axis=0, ddof=1) / np.sqrt(draws)
    # A chance of 1 in 40 000 for each entry; 2^-16 of the largest step is what dither leaves.
    largest_step = 2.0 if mantissa_bits == 0 else 2.0 ** (1 - mantissa_bits)
    assert (np.abs(deviation) <= 4.2 * sigma + 2.0**-16 * largest_step + 1e-7).all()
    total = deviation.sum() / np.sqrt((sigma**2).sum() + 1e-14)
    assert abs(total) < 3


@settings(deadline=None)
@given(VECTORS, bits(), st.integers(60, 900), st.sampled_from(["nearest", "stochastic"]))
def test_fixed_estimates_are_exact(
    vector: F32, sizes: tuple[int, int], limit: int, rounding: str
) -> None:
    codec = EmqFixed(*sizes, rounding)  # type: ignore[arg-type]
    encoding = encode(codec, vector, limit)
    assert codec.estimate_bits(len(vector), max_payload_bytes=limit) == encoding.coded_bits
    assert encoding.nominal_bits == len(vector) * (1 + sum(sizes))
    assert codec.nominal_bits(len(vector)) == encoding.nominal_bits


@settings(deadline=None)
@given(VECTORS, bits())
def test_adaptive_nominal_bits_follow_the_formula(vector: F32, sizes: tuple[int, int]) -> None:
    exponent_bits, mantissa_bits = sizes
    encoding = encode(EmqAdaptive(*sizes), vector)
    rebuilt = wide(add_up(encoding.chunks, len(vector)))
    nonzero = rebuilt[rebuilt > 0]
    top = exponent(wide(vector).max())
    mantissas = np.clip(mantissa_bits - (top - (np.frexp(nonzero)[1] - 1)), 0, mantissa_bits)
    assert encoding.nominal_bits == exponent_bits * len(vector) + (1 + mantissas).sum()
    padding = 8 * len(encoding.chunks) * (5 + 1 + exponent_bits + mantissa_bits)
    assert 0 <= encoding.coded_bits - encoding.nominal_bits <= padding


@pytest.mark.parametrize("limit", [1200, MIB])
@pytest.mark.parametrize("sizes", [(4, 8), (5, 10), (3, 2)])
def test_adaptive_estimates_are_close_for_normal_entries(
    sizes: tuple[int, int], limit: int
) -> None:
    vector = np.random.default_rng(1).standard_normal(200_000).astype(np.float32)
    codec = EmqAdaptive(*sizes)
    encoding = encode(codec, vector, limit)
    estimate = codec.estimate_bits(len(vector), max_payload_bytes=limit)
    assert estimate == pytest.approx(encoding.coded_bits, rel=0.03)
    heavy = np.random.default_rng(1).standard_t(3, 200_000).astype(np.float32)
    assert encode(codec, heavy, limit).coded_bits < estimate
    assert len(encoding.chunks) <= 1 + encoding.coded_bits / 8 / (0.9 * limit)


@pytest.mark.parametrize("kind", [EmqFixed, EmqAdaptive])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("scale", [1e-45, 1e-41, 1e-30, 1.0, 1e30, 3.4e38])
def test_extreme_magnitudes(
    kind: type[EmqFixed | EmqAdaptive], rounding: str, scale: float
) -> None:
    vector = (np.array([1.0, -1.0, 0.999, 0.5, 0.0, -0.0]) * scale).astype(np.float32)
    rebuilt = rebuild(kind(5, 10, rounding), vector)  # type: ignore[arg-type]
    assert np.allclose(rebuilt, vector, rtol=2.0**-10, atol=1e-45)
    assert rebuilt[4:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", [EmqFixed, EmqAdaptive])
@pytest.mark.parametrize("dimension", [0, 1, 7, 8, 131_072, 131_073, 1_200_001])
def test_zeros_and_single_entries_survive(
    kind: type[EmqFixed | EmqAdaptive], dimension: int
) -> None:
    vector = np.zeros(dimension, dtype=np.float32)
    assert not rebuild(kind(4, 3), vector).any()
    if dimension:
        vector[dimension // 2] = -0.75
        for rounding in ("nearest", "stochastic"):
            assert np.array_equal(rebuild(kind(4, 3, rounding), vector), vector)
    else:
        assert encode(kind(4, 3), vector).nominal_bits == 0


@pytest.mark.parametrize("kind", [EmqFixed, EmqAdaptive])
@pytest.mark.parametrize(("exponent_bits", "mantissa_bits"), [(0, 3), (8, 3), (4, -1), (4, 12)])
def test_impossible_bits_are_refused(
    kind: type[EmqFixed | EmqAdaptive], exponent_bits: int, mantissa_bits: int
) -> None:
    with pytest.raises(CodecError, match="bits are impossible"):
        kind(exponent_bits, mantissa_bits)


@pytest.mark.parametrize("kind", [EmqFixed, EmqAdaptive])
def test_unknown_roundings_are_refused(kind: type[EmqFixed | EmqAdaptive]) -> None:
    with pytest.raises(CodecError, match='rounding is "up"'):
        kind(4, 3, "up")  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", [EmqFixed(4, 3), EmqAdaptive(4, 3)])
def test_packets_that_are_too_small_are_refused(codec: EmqFixed | EmqAdaptive) -> None:
    with pytest.raises(CodecError, match="max_payload_bytes is 9"):
        codec.encode(
            np.ones(9, np.float32), max_payload_bytes=9, generator=np.random.default_rng(1)
        )
    with pytest.raises(CodecError, match="max_payload_bytes is 9"):
        codec.estimate_bits(9, max_payload_bytes=9)


def try_to_decode(payload: bytes, count: int) -> None:
    try:
        segment = Emq.decode(payload, first=0, count=count)
    except CodecError:
        return
    assert len(segment.values) == count <= 8 * len(payload)
    assert np.isfinite(segment.values).all()


@settings(max_examples=400, deadline=None)
@given(
    head=st.tuples(
        st.integers(0, 8), st.integers(0, 15), st.integers(0, 3), st.integers(-160, 140)
    ),
    body=st.binary(max_size=100),
    count=st.one_of(st.integers(1, 300), st.integers(1, 2**32 - 1)),
)
def test_hostile_payloads_are_refused_or_give_finite_entries(
    head: tuple[int, int, int, int], body: bytes, count: int
) -> None:
    *sizes, top = head
    try_to_decode(bytes(sizes) + top.to_bytes(2, "little", signed=True) + body, count)
    try_to_decode(body, count)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_judgements_are_what_the_codecs_do(adaptive: bool, rounding: str) -> None:
    vector = np.random.default_rng(5).standard_t(4, 20_000).astype(np.float32)
    exact = rounding == "nearest"
    for one in judge_all(vector, adaptive=adaptive, rounding=rounding)[::5]:  # type: ignore[arg-type]
        encoding = encode(one.codec, vector)
        error = add_up(encoding.chunks, len(vector)).astype(np.float64) - vector
        nmse = float((error**2).sum() / (vector.astype(np.float64) ** 2).sum())
        bits = encoding.nominal_bits / len(vector)
        assert one.nmse == pytest.approx(nmse, rel=1e-6 if exact else 0.15)
        assert one.bits_per_entry == pytest.approx(bits, rel=1e-9 if exact else 0.02)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_fewest_bits_and_the_least_error_are_chosen(adaptive: bool) -> None:
    vector = np.random.default_rng(6).laplace(size=5000).astype(np.float32)
    judged = {one.codec: one for one in judge_all(vector, adaptive=adaptive)}
    coarse = judged[coarsest_within_error(vector, 1e-3, adaptive=adaptive)]
    assert coarse.nmse <= 1e-3
    assert all(
        one.nmse > 1e-3 for one in judged.values() if one.bits_per_entry < coarse.bits_per_entry
    )
    fine = judged[finest_within_bits(vector, 7 * 5000, adaptive=adaptive)]
    assert encode(fine.codec, vector).nominal_bits <= 7 * 5000
    assert all(one.nmse >= fine.nmse for one in judged.values() if one.bits_per_entry <= 7)


def test_choices_that_do_not_exist_are_refused() -> None:
    vector = np.random.default_rng(6).laplace(size=50).astype(np.float32)
    with pytest.raises(CodecError, match="no EMQ code reaches an NMSE of 0;"):
        coarsest_within_error(vector, 0.0, adaptive=False)
    with pytest.raises(CodecError, match="no EMQ code of 50 bits; the shortest takes 100"):
        finest_within_bits(vector, 50, adaptive=False)
    with pytest.raises(CodecError, match="without entries"):
        judge_all(vector[:0], adaptive=False)
    zeros = np.zeros(9, dtype=np.float32)
    assert coarsest_within_error(zeros, 0.0, adaptive=False) == EmqFixed(1, 0)
