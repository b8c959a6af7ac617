"""Signs and magnitudes in packets of their own."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto.codec_cases import DENORMAL, EXTREME_VECTORS, HUGE, MIB, decode, parts_of
from tests.proto.codec_cases import encode as encoded

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, CodecError, Part
from fadelab_proto.codecs.grids import BLOCK
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.sign_modulus import Moduli, SignModulus, SignOnly, Signs

groupings = st.one_of(st.just(Groups()), st.builds(Groups, block=st.integers(1, 100)))


def encode(codec: SignModulus | SignOnly, vector: F32, limit: int = MIB) -> tuple[Chunk, ...]:
    return encoded(codec, vector, limit).chunks


def rebuild(chunks: tuple[Chunk, ...], dimension: int) -> tuple[F32, F32]:
    """Return signs and magnitudes, in the order of the coordinates."""
    parts = parts_of(chunks, dimension)
    return parts[Part.SIGNS], parts[Part.MODULI]


def steps_of(
    vector: F32, groups: Groups, bits: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    starts = groups.starts(len(vector))
    moduli = np.abs(vector.astype(np.float64))
    ranges = np.maximum.reduceat(moduli, starts) - np.minimum.reduceat(moduli, starts)
    return np.repeat(ranges, np.diff([*starts, len(vector)])) / (2**bits - 1)


@given(EXTREME_VECTORS, st.integers(1, 16), groupings, st.integers(150, 1000))
def test_signs_are_exact_and_no_modulus_is_off_by_more_than_a_step(
    vector: F32, bits: int, groups: Groups, limit: int
) -> None:
    signs, moduli = rebuild(encode(SignModulus(bits, groups), vector, limit), len(vector))
    assert np.array_equal(signs, np.where(vector < 0, -1, 1))
    assert (moduli >= 0).all()
    error = np.abs(moduli.astype(np.float64) - np.abs(vector))
    rounding = np.abs(vector.astype(np.float64)) * 2.0**-23
    steps = steps_of(vector, groups, bits)
    # Magnitudes that dither cannot tell from 0 count as 0, hence the last term but one.
    slack = 2 * rounding + 2.0**-15 * steps + 2 * DENORMAL * 2.0**bits
    assert (error <= steps * (1 + 1e-6) + slack).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 13, 16])
@pytest.mark.parametrize("peak", [1.0, 3e-39, HUGE])
def test_levels_stay_what_they_are(bits: int, peak: float) -> None:
    """Dither must not carry the top code over, which would make it 0."""
    vector = np.zeros(2 * 100_000, dtype=np.float32)
    vector[1::2] = peak
    _, moduli = rebuild(encode(SignModulus(bits), vector), len(vector))
    assert not moduli[0::2].any()
    step = peak / (2**bits - 1)
    error = np.abs(moduli[1::2].astype(np.float64) - peak)
    assert error.max() <= 1.01 * step + DENORMAL * 2**bits
    assert np.median(error) <= 0.01 * step + DENORMAL * 2**bits


def test_magnitudes_between_two_numbers_use_the_whole_grid() -> None:
    vector = np.tile(np.array([100, -101], dtype=np.float32), 1000)
    signs, moduli = rebuild(encode(SignModulus(1), vector), len(vector))
    assert np.array_equal(signs * moduli, vector)


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8, 9, 16])
def test_rounding_is_unbiased(bits: int) -> None:
    distinct, draws = 60, 20_000
    values = np.random.default_rng(bits).uniform(0.1, 1, distinct).astype(np.float32)
    vector = np.tile(values, draws)
    _, moduli = rebuild(encode(SignModulus(bits), vector), len(vector))
    errors = (moduli.astype(np.float64) - vector).reshape(draws, distinct)
    step = np.ptp(values) / (2**bits - 1)
    upwards = (values - values.min()) / step % 1
    # Levels are rounded to float32, and a value that nearly lies on one is hardly ever moved.
    deviation = step * np.sqrt((upwards * (1 - upwards) + 10 / draws) / draws)
    deviation += np.spacing(values) / 2
    scores = errors.mean(axis=0) / deviation
    assert abs(scores.sum()) < 3 * np.sqrt(len(scores))
    assert np.abs(scores).max() < 4.5


@given(st.integers(1, 16), groupings, st.integers(60, 900), st.integers(1, 1500))
def test_estimates_are_exact_and_signs_come_first(
    bits: int, groups: Groups, limit: int, dimension: int
) -> None:
    codec = SignModulus(bits, groups)
    vector = np.random.default_rng(1).standard_normal(dimension).astype(np.float32)
    generator = np.random.default_rng(1)
    try:
        encoding = codec.encode(vector, max_payload_bytes=limit, generator=generator)
    except CodecError:
        assert limit < 1 + 12 + 8 * 8 + bits
        return
    assert codec.estimate_bits(dimension, max_payload_bytes=limit) == encoding.coded_bits
    groups_total = len(groups.starts(dimension))
    assert encoding.nominal_bits == (1 + bits) * dimension + 64 * groups_total
    classes = [chunk.packet_class for chunk in encoding.chunks]
    signs = classes.count(pb.PACKET_CLASS_SIGN)
    assert classes == [pb.PACKET_CLASS_SIGN] * signs + [pb.PACKET_CLASS_MODULUS] * (
        len(classes) - signs
    )
    assert rebuild(encoding.chunks, dimension)[0].all()


@given(EXTREME_VECTORS, st.integers(1, 60))
def test_signs_alone_take_a_bit_each(vector: F32, limit: int) -> None:
    chunks = encode(SignOnly(), vector, limit)
    signs, _ = rebuild(chunks, len(vector))
    assert np.array_equal(signs, np.where(vector < 0, -1, 1))
    bits = SignOnly().estimate_bits(len(vector), max_payload_bytes=limit)
    assert bits == 8 * sum(len(chunk.payload) for chunk in chunks)
    assert len(vector) <= bits < len(vector) + 8
    assert SignOnly().nominal_bits(len(vector)) == len(vector)


@given(st.integers(1, 300), st.data())
def test_joining_gives_magnitudes_their_signs(count: int, data: st.DataObject) -> None:
    vector = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    (chunk,) = encode(SignOnly(), vector)
    skip = data.draw(st.integers(0, count))
    size = data.draw(st.integers(0, count - skip))
    joined = np.abs(vector[skip : skip + size])
    Signs.join(chunk.payload, joined, count=count, skip=skip)
    assert np.array_equal(joined, vector[skip : skip + size])


def test_a_large_vector_round_trips_and_joins() -> None:
    dimension = 2 * BLOCK + 777
    vector = np.random.default_rng(3).standard_normal(dimension).astype(np.float32)
    groups = Groups(block=4096)
    chunks = encode(SignModulus(4, groups), vector)
    sign_chunk = chunks[0]
    joined = np.zeros(dimension, dtype=np.float32)
    for chunk in chunks[1:]:
        segment = decode(chunk)
        Signs.join(sign_chunk.payload, segment.values, count=sign_chunk.count, skip=chunk.first)
        segment.add_to(joined)
    assert (np.abs(joined - vector) <= 1.001 * steps_of(vector, groups, 4) + 1e-6).all()


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("float_type", [np.float32, np.float64])
def test_accumulating_is_decoding_joining_and_adding(
    weight: float, float_type: type[np.float32] | type[np.float64]
) -> None:
    dimension = BLOCK + 333
    vector = np.random.default_rng(3).standard_normal(dimension).astype(np.float32)
    chunks = encode(SignModulus(5, Groups(block=4096)), vector, 50_000)
    signs = b"".join(c.payload for c in chunks if c.packet_class == pb.PACKET_CLASS_SIGN)
    packed = np.frombuffer(signs, dtype=np.uint8)
    added, accumulated = np.ones((2, dimension), dtype=float_type)
    for chunk in chunks:
        if chunk.packet_class == pb.PACKET_CLASS_MODULUS:
            segment = decode(chunk)
            Signs.join(signs, segment.values, count=dimension, skip=chunk.first)
            segment.add_to(added, weight)
            span = {"first": chunk.first, "count": chunk.count}
            Moduli.accumulate(chunk.payload, accumulated, weight, **span, signs=packed)
    assert np.array_equal(added, accumulated)


def test_joining_outside_the_signs_is_refused() -> None:
    with pytest.raises(CodecError, match="cannot cover 5 after the first 4"):
        Signs.join(b"\x00", np.ones(5, dtype=np.float32), count=8, skip=4)
    (_, chunk) = encode(SignModulus(1), np.ones(9, dtype=np.float32))
    with pytest.raises(CodecError, match="1 bytes of signs end before coordinate 8"):
        Moduli.accumulate(
            chunk.payload, np.zeros(9), 1.0, first=0, count=9, signs=np.zeros(1, dtype=np.uint8)
        )


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(CodecError, match="bits is 0; allowed are 1 to 16"):
        SignModulus(0)
    with pytest.raises(CodecError, match="max_payload_bytes is 0"):
        encode(SignOnly(), np.ones(3, dtype=np.float32), 0)


@settings(max_examples=200)
@given(st.sampled_from([Signs, Moduli]), st.binary(max_size=80), st.integers(1, 2**32 - 1))
def test_any_bytes_give_numbers_in_range_or_a_clear_refusal(
    payload_format: type[Signs] | type[Moduli], payload: bytes, count: int
) -> None:
    tracemalloc.start()
    try:
        segment = payload_format.decode(payload, first=0, count=count)
    except CodecError:
        assert tracemalloc.get_traced_memory()[1] < 100_000 + 200 * len(payload)
        return
    finally:
        tracemalloc.stop()
    assert len(segment.values) == count
    assert np.isfinite(segment.values).all()
