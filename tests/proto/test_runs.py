"""Runs of coordinates, against sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fadelab_proto.runs import NO_RUNS, Runs, complement, difference, union, within

N = 40
pairs = st.lists(
    st.tuples(st.integers(0, N - 1), st.integers(1, N)).map(lambda p: (p[0], min(N, p[0] + p[1]))),
    max_size=8,
)


def members(runs: Runs) -> set[int]:
    return {own for first, last in runs.tolist() for own in range(first, last)}


def covered(runs: list[tuple[int, int]]) -> set[int]:
    return {own for first, last in runs for own in range(first, last)}


@given(pairs)
def test_a_union_is_in_order_and_has_gaps(runs: list[tuple[int, int]]) -> None:
    joined = union(runs)
    assert members(joined) == covered(runs)
    assert (joined[:, 0] < joined[:, 1]).all()
    assert (joined[1:, 0] > joined[:-1, 1]).all()


@given(pairs, pairs)
def test_complement_and_difference(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    assert members(complement(union(one), N)) == set(range(N)) - covered(one)
    assert members(difference(union(one), union(other), N)) == covered(one) - covered(other)


@given(pairs, st.integers(0, N), st.integers(1, N))
def test_what_lies_within_a_window(runs: list[tuple[int, int]], first: int, count: int) -> None:
    last = first + count
    found = within(union(runs), first, last)
    assert covered(found) == covered(runs) & set(range(first, last))
    assert all(begin < end for begin, end in found)


def test_nothing_is_nothing() -> None:
    assert union([]).shape == NO_RUNS.shape == (0, 2)
    np.testing.assert_array_equal(complement(NO_RUNS, 5), [[0, 5]])
    assert len(complement(NO_RUNS, 0)) == 0
