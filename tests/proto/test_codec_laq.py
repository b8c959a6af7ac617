"""LAQ's and AQUILA's quantiser against its formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.proto.codec_cases import encode, rebuild

from fadelab_proto.codecs.base import F32, CodecError
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.laq import Aquila, Laq, aquila_bits

UNUSED = np.random.default_rng(1)
vectors = hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-1e6, 1e6, width=32))


def quantised(codec: Laq | Aquila, vector: F32) -> F32:
    return rebuild(encode(codec, vector).chunks, len(vector))


@given(vectors, st.integers(1, 16), st.integers(1, 200))
def test_the_error_is_at_most_t(vector: F32, bits: int, block: int) -> None:
    groups = Groups(block=block)
    rebuilt = quantised(Laq(bits, groups), vector).astype(np.float64)
    starts = groups.starts(len(vector))
    radii = np.maximum.reduceat(np.abs(vector), starts).astype(np.float64)
    t = np.repeat(radii, np.diff([*starts, len(vector)])) / (2**bits - 1)
    rounding = np.spacing(np.abs(vector).max())
    assert (np.abs(rebuilt - vector) <= t + 2 * rounding + 2e-45 * 2**bits).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 8, 10, 16])
def test_values_are_those_of_the_formula(bits: int) -> None:
    vector = np.random.default_rng(bits).standard_normal(20_000).astype(np.float32)
    radius = float(np.abs(vector).max())
    t = radius / (2**bits - 1)
    exact = vector.astype(np.float64)
    expected = -radius + 2 * t * np.floor((exact + radius + t) / (2 * t))
    difference = np.abs(quantised(Laq(bits), vector) - expected)
    # An entry within rounding of the middle between two levels may go either way.
    assert (difference > 1e-6 * radius).mean() < 1e-3
    assert difference.max() <= 2.001 * t


def test_the_same_vector_always_gives_the_same_packets() -> None:
    vector = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    first, second = (
        Laq(5).encode(vector, max_payload_bytes=300, generator=np.random.default_rng(seed))
        for seed in (1, 2)
    )
    assert first == second


@given(st.integers(1, 16), st.integers(1, 3000), st.integers(60, 900))
def test_the_estimate_is_exact(bits: int, dimension: int, limit: int) -> None:
    vector = np.ones(dimension, dtype=np.float32)
    encoding = encode(Laq(bits), vector, limit)
    assert Laq(bits).estimate_bits(dimension, max_payload_bytes=limit) == encoding.coded_bits
    assert encoding.nominal_bits == 32 + bits * dimension


def test_zeros_are_rebuilt_as_zeros_only_if_all_are() -> None:
    assert not quantised(Laq(3), np.zeros(10, dtype=np.float32)).any()
    assert quantised(Laq(3), np.array([0, 7], dtype=np.float32)).tolist() == [1, 7]


@pytest.mark.parametrize(
    ("vector", "bits"),
    [
        ([0.0, 0.0], 1),
        ([1.0, -1.0, 1.0], 1),
        ([3.0] + [0.0] * 8, 2),
        ([7.0] + [0.0] * 48, 3),
        ([1.0] + [0.0] * (2**16 - 1), 8),
        ([1.0] + [1e-30] * 3, 1),
    ],
)
def test_bits_of_aquila(vector: list[float], bits: int) -> None:
    assert aquila_bits(np.array(vector, dtype=np.float32)) == bits


@given(vectors)
def test_aquila_is_laq_with_its_bits(vector: F32) -> None:
    chosen = Laq(aquila_bits(vector))
    encoding = encode(Aquila(), vector, 900)
    assert encoding == encode(chosen, vector, 900)


def test_aquila_expects_what_normal_vectors_take() -> None:
    vector = np.random.default_rng(3).standard_normal(50_000).astype(np.float32)
    encoding = encode(Aquila(), vector, 9000)
    assert Aquila().estimate_bits(50_000, max_payload_bytes=9000) == encoding.coded_bits
    assert Aquila().nominal_bits(50_000) == encoding.nominal_bits == 32 + 2 * 50_000


def test_bits_are_checked() -> None:
    with pytest.raises(CodecError, match="bits is 0; allowed are 1 to 16"):
        Laq(0)
