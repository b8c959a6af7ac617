"""QSGD: scale, lack of bias, and the variance that its paper promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.proto.codec_cases import encode, rebuild

from fadelab_proto.codecs.base import F32, CodecError
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.qsgd import Qsgd

vectors = hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-1e6, 1e6, width=32))


def quantised(codec: Qsgd, vector: F32, seed: int = 1) -> F32:
    return rebuild(encode(codec, vector, seed=seed).chunks, len(vector))


@given(vectors, st.integers(2, 16))
def test_entries_are_whole_multiples_of_norm_over_s_next_to_the_true_one(
    vector: F32, bits: int
) -> None:
    s = 2 ** (bits - 1) - 1
    step = np.linalg.norm(vector.astype(np.float64)) / s
    rebuilt = quantised(Qsgd(bits), vector).astype(np.float64)
    assert (np.abs(rebuilt - vector) <= step * (1 + 1e-6) + 1e-44 * s).all()
    assert not rebuilt[vector == 0].any()
    if step > 1e-30:
        levels = rebuilt / step
        assert np.allclose(levels, np.round(levels), atol=s * 1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_bias_and_the_variance_of_lemma_3_1(bits: int) -> None:
    rng = np.random.default_rng(bits)
    dimension, draws = 500, 2000
    vector = rng.standard_normal(dimension).astype(np.float32)
    s = 2 ** (bits - 1) - 1
    errors = np.stack(
        [quantised(Qsgd(bits), vector, seed) - vector.astype(np.float64) for seed in range(draws)]
    )
    bound = min(dimension / s**2, np.sqrt(dimension) / s) * np.square(vector).sum()
    squares = np.square(errors).sum(axis=1)
    assert squares.mean() <= bound
    step = np.linalg.norm(vector) / s
    upwards = np.abs(vector) / step % 1
    # A value that nearly lies on a level is hardly ever moved.
    deviation = step * np.sqrt((upwards * (1 - upwards) + 10 / draws) / draws)
    scores = errors.mean(axis=0) / deviation
    assert abs(scores.sum()) < 3 * np.sqrt(dimension)
    assert np.abs(scores).max() < 4.5


def test_each_bucket_has_its_norm() -> None:
    vector = np.array([3, 4, 0, 300, 400, 0], dtype=np.float32)
    rebuilt = quantised(Qsgd(9, Groups(block=3)), vector)
    assert np.abs(rebuilt[:3] - vector[:3]).max() <= 5 / 255
    assert np.abs(rebuilt[3:] - vector[3:]).max() <= 500 / 255


@given(st.integers(2, 16), st.integers(1, 3000), st.integers(60, 900))
def test_the_estimate_is_exact(bits: int, dimension: int, limit: int) -> None:
    codec = Qsgd(bits)
    vector = np.ones(dimension, dtype=np.float32)
    encoding = encode(codec, vector, limit)
    assert codec.estimate_bits(dimension, max_payload_bytes=limit) == encoding.coded_bits
    assert encoding.nominal_bits == 32 + bits * dimension


def test_a_norm_beyond_float32_is_refused() -> None:
    with pytest.raises(CodecError, match=r"a scale of 4\.81e\+38 would be needed"):
        encode(Qsgd(4), np.full(2, 3.4e38, dtype=np.float32))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CodecError, match="bits is 1; allowed are 2 to 16"):
        Qsgd(1)
    with pytest.raises(CodecError, match="float32 ends at"):
        quantised(Qsgd(2), np.full(100, 3e38, dtype=np.float32))


@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-20, 3e36])
def test_scales_at_the_ends_of_float32(scale: float) -> None:
    vector = (np.random.default_rng(1).uniform(-1, 1, 50) * scale).astype(np.float32)
    step = np.linalg.norm(vector.astype(np.float64)) / 127
    assert (np.abs(quantised(Qsgd(8), vector).astype(np.float64) - vector) <= step + 3e-43).all()
