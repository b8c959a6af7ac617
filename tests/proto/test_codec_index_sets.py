"""Codes of index sets: what is written is read, sizes against entropy, hostile bytes."""

import tracemalloc
from itertools import pairwise
from math import lgamma, log

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fadelab_proto.codecs.base import CodecError, Index
from fadelab_proto.codecs.index_sets import (
    IndexCode,
    decode_indices,
    encode_indices,
    encode_literally,
    expected_bits,
    literal_bits,
)


def entropy_bits(k: int, n: int) -> float:
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)


def random_set(k: int, n: int, seed: int = 0) -> Index:
    chosen = np.random.default_rng(seed).choice(n, k, replace=False)
    return np.sort(chosen).astype(np.int64)


def clustered_set(k: int, n: int, seed: int = 0) -> Index:
    """Draw sets that avoid most of the range, as those of gradients do."""
    draw = np.random.default_rng(seed)
    density = np.repeat(draw.random(100) ** 40, -(-n // 100))[:n] + 1e-9
    return np.sort(draw.choice(n, k, replace=False, p=density / density.sum())).astype(np.int64)


@st.composite
def index_sets(draw: st.DrawFn) -> tuple[Index, int]:
    runs = draw(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 400)), max_size=30))
    parts, at = [], 0
    for gap, length in runs:
        spacing = draw(st.sampled_from([1, 1, 2, 3, 7, 50]))
        parts.append(at + gap + spacing * np.arange(length))
        at = int(parts[-1][-1]) + 1
    indices = np.concatenate(parts) if parts else np.array([draw(st.integers(0, 2**32 - 2))])
    beyond = draw(st.integers(1, 5000))
    return indices.astype(np.int64), min(int(indices[-1]) + beyond, 2**32 - 1)


@given(index_sets())
@example((np.arange(1), 1))
@example((np.arange(1000), 1000))
@example((np.array([2**32 - 2]), 2**32 - 1))
def test_what_is_written_is_read(pair: tuple[Index, int]) -> None:
    indices, n = pair
    for encode in (encode_indices, encode_literally):
        coded = encode(indices, n)
        decoded = decode_indices(coded, k=len(indices), n=n)
        assert decoded.dtype == np.int64
        assert np.array_equal(decoded, indices)
    assert 8 * len(coded) == literal_bits(len(indices), n)
    assert len(encode_indices(indices, n)) <= 1 + (n + 7) // 8


@pytest.mark.parametrize("n", [1, 2, 63, 129, 5_000, 300_000])
@pytest.mark.parametrize("share", [0.0, 0.003, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_random_and_clustered_sets(n: int, share: float) -> None:
    k = max(1, round(share * n))
    for indices in (random_set(k, n), clustered_set(k, n)):
        assert np.array_equal(decode_indices(encode_indices(indices, n), k=k, n=n), indices)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.045, 0.0672, 0.1])
@pytest.mark.parametrize("k", [4_000, 50_000])
def test_random_sets_take_little_more_than_their_entropy(k: int, share: float) -> None:
    n = round(k / share)
    # As gaps are independent, this takes the memory of k, not of n, and is as good as uniform.
    gaps = np.random.default_rng(3).geometric(share, k)
    indices = np.cumsum(gaps) - 1
    n = max(n, int(indices[-1]) + 1)
    assert 8 * len(encode_indices(indices, n)) < 1.015 * entropy_bits(k, n) + 32


def test_a_small_random_set_takes_little_more_than_its_entropy() -> None:
    sizes = [8 * len(encode_indices(random_set(78, 7850, seed), 7850)) for seed in range(20)]
    assert np.mean(sizes) < 1.05 * entropy_bits(78, 7850) + 32


def test_clustered_sets_take_less_than_the_entropy_of_random_ones() -> None:
    indices = clustered_set(10_000, 1_000_000)
    coded = encode_indices(indices, 1_000_000)
    assert coded[0] == IndexCode.ADAPTIVE
    assert 8 * len(coded) < 0.75 * entropy_bits(10_000, 1_000_000)


@pytest.mark.parametrize(("share", "code"), [(0.01, IndexCode.GOLOMB), (0.5, IndexCode.BITMAP)])
def test_random_sets_need_no_adaptation(share: float, code: IndexCode) -> None:
    assert encode_indices(random_set(round(share * 50_000), 50_000), 50_000)[0] == code


@pytest.mark.parametrize("share", [0.001, 0.01, 0.06, 0.1, 0.3, 0.7])
def test_the_expected_size_is_that_of_random_sets(share: float) -> None:
    n = 200_000
    k = round(share * n)
    sizes = [8 * len(encode_indices(random_set(k, n, seed), n)) for seed in range(5)]
    assert np.mean(sizes) == pytest.approx(expected_bits(k, n), rel=0.02)


@pytest.mark.parametrize("n", [1, 7, 2_000, 2**32 - 1])
def test_the_expected_size_grows_with_the_set(n: int) -> None:
    sizes = np.unique(np.geomspace(1, n, 3000).astype(np.int64))
    bits = [expected_bits(int(k), n) for k in sizes]
    assert all(a <= b for a, b in pairwise(bits))


@settings(max_examples=300)
@given(st.data(), index_sets())
def test_damaged_bytes_are_refused_or_another_set(
    data: st.DataObject, pair: tuple[Index, int]
) -> None:
    indices, n = pair
    k = len(indices)
    coded = bytearray(encode_indices(indices, n))
    position = data.draw(st.integers(0, 8 * len(coded) - 1))
    coded[position // 8] ^= 1 << position % 8
    keep = data.draw(st.sampled_from([len(coded), len(coded) - 1, len(coded) // 2]))
    refused_or_valid(bytes(coded[:keep]), k, n)


@settings(max_examples=300)
@given(
    code=st.sampled_from(list(IndexCode)),
    data=st.binary(max_size=60),
    k=st.integers(0, 500),
    n=st.integers(0, 2**32 - 1),
)
def test_made_up_bytes_are_refused_or_a_set(code: IndexCode, data: bytes, k: int, n: int) -> None:
    refused_or_valid(bytes([code]) + data, k, n)


def refused_or_valid(data: bytes, k: int, n: int) -> None:
    try:
        indices = decode_indices(data, k=k, n=n)
    except CodecError:
        return
    assert len(indices) == k
    assert indices[0] >= 0
    assert indices[-1] < n
    assert (np.diff(indices) > 0).all()


def test_another_number_of_indices_is_refused() -> None:
    for k, n in ((78, 7850), (3000, 40_000), (500, 1000)):
        for encode in (encode_indices, encode_literally):
            coded = encode(clustered_set(k, n), n)
            for wrong in (k - 1, k + 1, k + 900):
                with pytest.raises(CodecError):
                    decode_indices(coded, k=wrong, n=n)
            with pytest.raises(CodecError):
                decode_indices(coded + b"\x00", k=k, n=n)


def test_indices_beyond_the_range_or_out_of_order_are_refused() -> None:
    indices = np.array([3, 9, 14])
    with pytest.raises(CodecError, match="3 increasing indices below 14"):
        decode_indices(encode_indices(indices, 15), k=3, n=14)
    with pytest.raises(CodecError, match="increasing"):
        decode_indices(encode_literally(np.array([3, 14, 9]), 15), k=3, n=15)
    with pytest.raises(CodecError, match="increasing"):
        decode_indices(encode_literally(np.array([3, 3, 9]), 15), k=3, n=15)
    with pytest.raises(CodecError, match="index code 9"):
        decode_indices(b"\x09" + encode_indices(indices, 15)[1:], k=3, n=15)
    with pytest.raises(CodecError, match="divisor"):
        decode_indices(bytes([IndexCode.GOLOMB, 200, 7]), k=3, n=15)


@pytest.mark.parametrize("code", list(IndexCode))
def test_a_declared_size_allocates_nothing(code: IndexCode) -> None:
    data = bytes([code]) + bytes(range(19))
    tracemalloc.start()
    try:
        for k in (2**32 - 1, 2**20, 100, 1):
            with pytest.raises(CodecError):
                decode_indices(data, k=k, n=2**32 - 1)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000
