"""Uniform grids as bit planes: rounding, planes in any selection and order, hostile payloads."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.codec_cases import DENORMAL, EXTREME_VECTORS, HUGE, MIB, rebuild
from tests.proto.codec_cases import encode as encoded

from fadelab_proto.codecs.base import F32, Chunk, CodecError
from fadelab_proto.codecs.bit_planes import (
    code_type,
    field_bytes,
    pack_fields,
    pack_planes,
    plane_bytes,
    split_fields,
    unpack_fields,
    unpack_planes,
)
from fadelab_proto.codecs.grids import BLOCK, Grids
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.rounding import Dither
from fadelab_proto.codecs.uniform import Order, Uniform, half_levels

ORDERS: tuple[Order, ...] = ("coordinates", "planes")

groupings = st.one_of(st.just(Groups()), st.builds(Groups, block=st.integers(1, 100)))


def steps_of(
    vector: F32, groups: Groups, bits: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the step at each entry, by the definition."""
    starts = groups.starts(len(vector))
    peaks = np.maximum.reduceat(np.abs(vector.astype(np.float64)), starts)
    return np.repeat(peaks, np.diff([*starts, len(vector)])) / half_levels(bits)


def encode(codec: Uniform, vector: F32, limit: int = MIB) -> tuple[Chunk, ...]:
    return encoded(codec, vector, limit).chunks


@given(EXTREME_VECTORS, st.integers(1, 16), groupings, st.integers(150, 1000))
def test_no_error_exceeds_a_step(vector: F32, bits: int, groups: Groups, limit: int) -> None:
    if bits == 1 and np.abs(vector).max() > HUGE / 2:
        with pytest.raises(CodecError, match="float32 ends at"):
            encode(Uniform(bits, groups), vector, limit)
        return
    rebuilt = rebuild(encode(Uniform(bits, groups), vector, limit), len(vector))
    steps = steps_of(vector, groups, bits)
    error = np.abs(rebuilt.astype(np.float64) - vector)
    # A step is rounded to float32, which matters for numbers that have few digits.
    assert (error <= steps * (1 + 1e-6) + 2 * DENORMAL * 2.0**bits).all()


@pytest.mark.parametrize("bits", [2, 3, 8, 11, 16])
@pytest.mark.parametrize("peak", [1.0, 3e-39, HUGE])
def test_levels_stay_what_they_are(bits: int, peak: float) -> None:
    vector = np.zeros(3 * 70_000, dtype=np.float32)
    vector[1::3] = peak
    vector[2::3] = -peak
    rebuilt = rebuild(encode(Uniform(bits), vector), len(vector))
    assert not rebuilt[0::3].any()
    step = peak / half_levels(bits)
    for error in (rebuilt[1::3].astype(np.float64) - peak, rebuilt[2::3].astype(np.float64) + peak):
        assert np.abs(error).max() <= 1.01 * step + DENORMAL * 2**bits
        assert abs(np.median(error)) <= 0.01 * step + DENORMAL * 2**bits


@given(st.integers(1, 16), st.integers(1, 300), st.sampled_from(ORDERS))
def test_zeros_cost_nothing_but_space(bits: int, dimension: int, order: Order) -> None:
    vector = np.zeros(dimension, dtype=np.float32)
    assert not rebuild(encode(Uniform(bits, order=order), vector, 100), dimension).any()


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8, 9, 13])
def test_rounding_is_unbiased(bits: int) -> None:
    distinct, draws = 60, 20_000
    values = np.random.default_rng(bits).uniform(-1, 1, distinct).astype(np.float32)
    values[0] = 1.0
    vector = np.tile(values, draws)
    rebuilt = rebuild(encode(Uniform(bits), vector), len(vector)).astype(np.float64)
    errors = (rebuilt - vector).reshape(draws, distinct)
    step = 1 / half_levels(bits)
    upwards = (values + 1) / step % 1
    # Levels are rounded to float32, and a value that nearly lies on one is hardly ever moved.
    deviation = step * np.sqrt((upwards * (1 - upwards) + 10 / draws) / draws)
    deviation += np.spacing(np.abs(values)) / 2
    scores = errors.mean(axis=0) / deviation
    assert abs(scores.sum()) < 3 * np.sqrt(len(scores))
    assert np.abs(scores).max() < 4.5


@given(EXTREME_VECTORS, st.integers(1, 16), groupings)
def test_all_planes_in_one_packet_give_levels_exactly(
    vector: F32, bits: int, groups: Groups
) -> None:
    vector = np.clip(vector, -1e30, 1e30)
    (chunk,) = encode(Uniform(bits, groups), vector)
    body = memoryview(chunk.payload)[3:]
    grids, rest = Grids.read(body, len(vector), bits=bits)
    fields = split_fields(np.frombuffer(rest, dtype=np.uint8), bits, len(vector))
    levels = unpack_fields(fields, bits, 0, len(vector)).astype(np.float32)
    sizes = np.diff([*grids.starts, len(vector)])
    expected = np.repeat(grids.lows, sizes) + np.repeat(grids.steps, sizes) * levels
    segment = Uniform.decode(chunk.payload, first=5, count=len(vector))
    assert (segment.first, segment.refines) == (5, False)
    assert np.array_equal(segment.values, expected)


@given(
    bits=st.integers(2, 12),
    dimension=st.integers(1, 600),
    groups=groupings,
    keep=st.integers(1, 2**12 - 1),
    seed=st.integers(0, 99),
)
def test_any_planes_with_the_top_one_give_the_middle_of_what_is_left(
    bits: int, dimension: int, groups: Groups, keep: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(dimension).astype(np.float32)
    chunks = encode(Uniform(bits, groups, order="planes"), vector, 900)
    (whole,) = encode(Uniform(bits, groups), vector)
    grids, rest = Grids.read(memoryview(whole.payload)[3:], dimension, bits=bits)
    fields = split_fields(np.frombuffer(rest, dtype=np.uint8), bits, dimension)
    levels = unpack_fields(fields, bits, 0, dimension).astype(np.int64)
    kept = [bits - 1] + [plane for plane in range(bits - 1) if keep >> plane & 1]
    middle = (2**bits - 1) / 2
    expected = middle + sum(2.0**j * ((levels >> j & 1) - 0.5) for j in kept)
    sizes = np.diff([*grids.starts, dimension])
    lows, steps = np.repeat(grids.lows, sizes), np.repeat(grids.steps, sizes)
    held = tuple(chunk for chunk in chunks if chunk.payload[1] in kept)
    shuffled = tuple(held[i] for i in rng.permutation(len(held)))
    rebuilt = rebuild(shuffled, dimension)
    assert np.allclose(rebuilt, lows + steps * expected, rtol=0, atol=1e-5 * np.abs(vector).max())


def test_the_first_packets_of_an_update_by_planes_are_coarse_everywhere() -> None:
    vector = np.random.default_rng(4).standard_normal(5000).astype(np.float32)
    chunks = encode(Uniform(5, order="planes"), vector, 200)
    highest = [chunk.payload[1] for chunk in chunks]
    assert highest == sorted(highest, reverse=True)
    segments = [Uniform.decode(c.payload, first=c.first, count=c.count) for c in chunks]
    assert [segment.refines for segment in segments] == [plane < 4 for plane in highest]
    per_plane = len(chunks) // 5
    errors = [
        np.square(rebuild(chunks[: per_plane * planes], 5000) - vector).mean()
        for planes in range(1, 6)
    ]
    assert all(later < earlier / 2 for earlier, later in pairwise(errors))


@given(
    st.integers(1, 16),
    st.one_of(groupings, st.just(Groups(layers=(7, 150, 150, 13, 400, 1)))),
    st.sampled_from(ORDERS),
    st.integers(60, 2000),
)
def test_the_estimate_is_exact_and_packets_cover_every_plane_once(
    bits: int, groups: Groups, order: Order, limit: int
) -> None:
    dimension = 721
    codec = Uniform(bits, groups, order)
    vector = np.random.default_rng(1).standard_normal(dimension).astype(np.float32)
    try:
        encoding = codec.encode(vector, max_payload_bytes=limit, generator=np.random.default_rng(1))
    except CodecError:
        most_scale_bytes = 8 * (12 if groups.layers is None else 15)
        assert limit < 3 + 12 + most_scale_bytes + bits
        return
    assert codec.estimate_bits(dimension, max_payload_bytes=limit) == encoding.coded_bits
    assert encoding.nominal_bits == bits * dimension + 64 * len(groups.starts(dimension))
    covered = np.zeros((bits, dimension), dtype=int)
    for chunk in encoding.chunks:
        assert len(chunk.payload) <= limit
        _, highest, lowest = chunk.payload[:3]
        covered[lowest : highest + 1, chunk.first : chunk.first + chunk.count] += 1
    assert (covered == 1).all()


def test_a_large_vector_of_blocks_round_trips() -> None:
    dimension = 3 * BLOCK + 1234
    groups = Groups(block=4096)
    vector = np.random.default_rng(3).standard_normal(dimension).astype(np.float32)
    chunks = encode(Uniform(8, groups), vector, 300_000)
    # Packets begin with a block as long as blocks are short against packets.
    assert all(chunk.first % 4096 == 0 for chunk in chunks)
    error = np.abs(rebuild(chunks, dimension) - vector)
    assert (error <= steps_of(vector, groups, 8) * (1 + 1e-6)).all()


def test_a_run_of_planes_that_this_codec_does_not_write_is_read() -> None:
    vector = np.random.default_rng(3).standard_normal(50).astype(np.float32)
    chunks = encode(Uniform(5, order="planes"), vector)
    middle = [memoryview(chunk.payload)[-7:] for chunk in chunks[1:3]]
    levels = sum(
        np.unpackbits(np.frombuffer(plane, np.uint8), count=50, bitorder="little").astype(int)
        << bit
        for plane, bit in zip(middle, (1, 0), strict=True)
    )
    fields = [
        np.packbits(np.asarray(levels) >> bit & 1, bitorder="little").tobytes() for bit in (0, 1)
    ]
    step = chunks[1].payload[7:11]
    payload = bytes((5, 3, 2)) + bytes((1, 0, 0, 0)) + step + b"".join(fields)
    both = Uniform.decode(payload, first=0, count=50)
    assert both.refines
    assert np.allclose(both.values, rebuild(chunks[1:3], 50), rtol=1e-6)


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(CodecError, match="bits is 17; allowed are 1 to 16"):
        Uniform(17)
    with pytest.raises(CodecError, match='order is "depth"'):
        Uniform(3, order="depth")  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="max_payload_bytes is 10"):
        encode(Uniform(3), np.ones(9, dtype=np.float32), 10)


def decode_or_refuse(payload: bytes, count: int) -> None:
    """Decode, and hold memory and values against the bounds."""
    tracemalloc.start()
    try:
        segment = Uniform.decode(payload, first=0, count=count)
    except CodecError:
        assert tracemalloc.get_traced_memory()[1] < 100_000 + 200 * len(payload)
        return
    finally:
        tracemalloc.stop()
    assert len(segment.values) == count
    assert np.isfinite(segment.values).all()


@given(st.binary(max_size=80), st.integers(1, 2**32 - 1))
def test_any_bytes_give_finite_numbers_or_a_clear_refusal(payload: bytes, count: int) -> None:
    decode_or_refuse(payload, count)


@given(st.integers(1, 16), st.integers(1, 400), st.integers(0, 99))
def test_planes_and_fields_hold_what_was_put_in(bits: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, count).astype(code_type(bits))
    at = 8 * int(rng.integers(0, 5))
    planes = np.zeros((bits, plane_bytes(at + count)), dtype=np.uint8)
    pack_planes(codes, bits, planes, at)
    assert np.array_equal(unpack_planes(planes, at, count), codes)
    fields = split_fields(np.zeros(field_bytes(bits, at + count), dtype=np.uint8), bits, at + count)
    pack_fields(codes, bits, fields, at)
    assert np.array_equal(unpack_fields(fields, bits, at, count), codes)
    assert 8 * field_bytes(bits, 16) == 16 * bits


def test_dither_is_uniform_and_serially_independent_beyond_what_the_generator_gave() -> None:
    drawn = np.empty(2_500_000, dtype=np.float32)
    Dither(np.random.default_rng(5), len(drawn)).fill(drawn)
    counts = np.bincount(drawn.astype(np.int64) >> 6, minlength=1024)
    excess = np.square(counts - counts.mean()).sum() / counts.mean()
    assert abs(excess - 1023) < 4 * np.sqrt(2 * 1023)
    centred = drawn / 65536 - 0.5
    for lag in (1, 2, 4, 4 * 21_034, 4 * 44_497):
        correlation = 12 * (centred[lag:] * centred[:-lag]).mean()
        assert abs(correlation) < 4 / np.sqrt(len(centred))
