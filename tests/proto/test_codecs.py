"""What holds for every codec, whatever it rounds and however it packs."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto.codec_cases import (
    CASES,
    DENORMAL,
    EXTREME_VECTORS,
    VECTORS,
    check_segment,
    decode,
    encode,
    rebuild,
)

from fadelab_proto import codecs
from fadelab_proto.codecs import CodecError, DenseF32, Part, SignOnly
from fadelab_proto.codecs.base import F32
from fadelab_proto.codecs.selection import largest

NAMES = st.sampled_from(list(CASES))


def vectors(dimension: int, peak: float) -> dict[str, F32]:
    draw = np.random.default_rng(dimension)
    normal = draw.standard_normal(dimension).astype(np.float32)
    one_hot = np.zeros(dimension, dtype=np.float32)
    one_hot[dimension // 2] = -0.75
    units = draw.integers(-3, 4, dimension)
    return {
        "normal": normal,
        "zeros": np.zeros(dimension, dtype=np.float32),
        "one-hot": one_hot,
        "constant": np.full(dimension, -2.5, dtype=np.float32),
        "denormal": (units * DENORMAL).astype(np.float32),
        "huge": (draw.choice([-1.0, 1.0], dimension) * peak).astype(np.float32),
    }


@pytest.mark.parametrize("dimension", [1, 2, 7, 8, 9, 63, 1000, 70_001])
@pytest.mark.parametrize("name", CASES)
def test_vectors_of_all_kinds_and_lengths_survive(name: str, dimension: int) -> None:
    case = CASES[name]
    for kind, vector in vectors(dimension, case.largest).items():
        chunks = encode(case.codec, vector, 30_000).chunks
        assert chunks == encode(case.codec, vector, 30_000).chunks
        covered = np.zeros(dimension, dtype=bool)
        for chunk in chunks:
            segment = decode(chunk)
            check_segment(segment, chunk.count)
            covered[chunk.first : chunk.first + chunk.count] = True
        assert covered.all()
        rebuilt = rebuild(chunks, dimension)
        assert np.isfinite(rebuilt).all()
        if kind == "zeros":
            assert not rebuilt.any()
        if kind == "one-hot" and not isinstance(case.codec, SignOnly):
            assert rebuilt[dimension // 2] == pytest.approx(-0.75, rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_million_entries(name: str) -> None:
    case = CASES[name]
    vector = vectors(1_000_003, case.largest)["normal"]
    encoding = encode(case.codec, vector)
    rebuilt = rebuild(encoding.chunks, len(vector))
    if case.keeps_all and not isinstance(case.codec, SignOnly):
        # However coarse, it goes the vector's way, and about as far.
        assert 0.8 < np.dot(rebuilt, vector) / np.dot(vector, vector) < 2.5
    assert encoding.coded_bits <= 1.02 * case.codec.estimate_bits(
        len(vector), max_payload_bytes=1 << 20
    )


@settings(deadline=None, max_examples=200)
@given(NAMES, EXTREME_VECTORS, st.integers(200, 2000))
def test_any_vector_gives_packets_that_keep_their_promises(
    name: str, vector: F32, limit: int
) -> None:
    case = CASES[name]
    vector = np.clip(vector, -np.float32(case.largest), np.float32(case.largest))
    for chunk in encode(case.codec, vector, limit).chunks:
        check_segment(decode(chunk), chunk.count)


@settings(deadline=None, max_examples=200)
@given(NAMES, VECTORS, st.integers(200, 700), st.randoms(use_true_random=False))
def test_every_packet_means_the_same_alone_and_in_any_order(
    name: str, vector: F32, limit: int, order: random.Random
) -> None:
    case = CASES[name]
    vector = np.clip(vector / np.float32(4), -np.float32(1e4), np.float32(1e4))
    chunks = list(encode(case.codec, vector, limit).chunks)
    alone = {chunk: decode(chunk) for chunk in chunks}
    whole = rebuild(chunks, len(vector))
    order.shuffle(chunks)
    kept = chunks[: order.randint(0, len(chunks))]
    for chunk in kept:
        # From somewhere in a longer buffer, as it comes off the wire.
        buffer = memoryview(b"x" + chunk.payload + b"yz")[1:-2]
        again = codecs.decode(chunk.codec, buffer, first=chunk.first, count=chunk.count)
        assert again.values.tobytes() == alone[chunk].values.tobytes()
        assert np.array_equal(again.indices, alone[chunk].indices)
    scale = np.abs(whole).max(initial=0)
    assert np.allclose(rebuild(chunks, len(vector)), whole, rtol=0, atol=1e-6 * scale + 1e-44)
    missing = [chunk for chunk in chunks if chunk not in kept]
    untouched = np.ones(len(vector), dtype=bool)
    for chunk in missing:
        untouched[chunk.first : chunk.first + chunk.count] = False
    part = rebuild(kept, len(vector))
    assert np.allclose(part[untouched], whole[untouched], rtol=0, atol=1e-6 * scale + 1e-44)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.unbiased])
def test_what_is_kept_is_right_on_average(name: str) -> None:
    dimension, draws = 300, 400
    vector = np.random.default_rng(4).standard_cauchy(dimension).astype(np.float32)
    vector[::7] = 0
    rebuilt = np.array(
        [
            rebuild(encode(CASES[name].codec, vector, 900, seed).chunks, dimension)
            for seed in range(draws)
        ]
    ).astype(np.float64)
    kept = np.arange(dimension) if CASES[name].keeps_all else largest(vector, 40)
    errors = rebuilt[:, kept] - vector[kept]
    # What float32 itself rounds is no bias of the codec's.
    sigma = errors.std(axis=0, ddof=1) / np.sqrt(draws) + np.spacing(np.abs(vector[kept]))
    largest_step = np.abs(errors).max()
    # Dither is a multiple of 2^-16 of a step; rare values have a deviation that draws do not show.
    sigma += 2.0**-16 * largest_step
    assert abs(errors.mean(axis=0).sum()) < 3 * np.sqrt(np.square(sigma).sum())
    rare = largest_step / np.sqrt(draws) * np.sqrt(10 / draws)
    assert (np.abs(errors.mean(axis=0)) < 4.5 * (sigma + rare)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", CASES)
def test_values_that_are_not_finite_are_refused_by_name(name: str, bad: float) -> None:
    for dimension, position in ((5, 3), (9000, 7777), (70_000, 69_999)):
        vector = np.ones(dimension, dtype=np.float32)
        vector[position] = bad
        with pytest.raises(CodecError, match=f"entry {position} of the vector is -?(nan|inf)"):
            encode(CASES[name].codec, vector, 30_000)


@pytest.mark.parametrize("name", CASES)
def test_an_empty_vector_takes_no_packet(name: str) -> None:
    assert encode(CASES[name].codec, np.zeros(0, dtype=np.float32)).chunks == ()


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("float_type", [np.float32, np.float64])
def test_segments_are_added_in_the_precision_of_the_sum(
    weight: float, float_type: type[np.float32] | type[np.float64]
) -> None:
    draw = np.random.default_rng(1)
    for dimension in (1, 300_001):
        values = draw.standard_normal(dimension).astype(np.float32)
        spread = np.cumsum(draw.integers(1, 4, dimension)) - 1
        for indices in (None, spread):
            total = np.ones(5 + 3 * dimension, dtype=float_type)
            expected = total.copy()
            codecs.Segment(5, values, indices).add_to(total, weight)
            places = 5 + (np.arange(dimension) if indices is None else indices)
            expected[places] += values.astype(float_type) * float_type(weight)
            assert np.array_equal(total, expected)


@given(VECTORS, st.integers(4, 700))
def test_float32_is_lossless_and_its_size_is_known(vector: F32, limit: int) -> None:
    encoding = encode(DenseF32(), vector, limit)
    assert np.array_equal(rebuild(encoding.chunks, len(vector)), vector)
    estimate = DenseF32().estimate_bits(len(vector), max_payload_bytes=limit)
    assert estimate == encoding.coded_bits


def test_unknown_codec_is_refused() -> None:
    with pytest.raises(CodecError, match="codec 77"):
        codecs.decode(77, b"", first=0, count=1)


def test_moduli_and_signs_are_told_apart() -> None:
    chunks = encode(CASES["sign and modulus 4"].codec, np.array([1, -2], np.float32)).chunks
    assert [decode(chunk).part for chunk in chunks] == [Part.SIGNS, Part.MODULI]
