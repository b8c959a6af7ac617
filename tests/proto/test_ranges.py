"""Sets of numbers that mostly are runs."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fadelab_proto.ranges import RangeSet


@given(st.lists(st.integers(0, 30), max_size=60))
def test_it_is_a_set_in_order(numbers: list[int]) -> None:
    found = RangeSet()
    seen: set[int] = set()
    for number in numbers:
        assert found.add(number) == (number not in seen)
        seen.add(number)
        assert list(found) == sorted(seen)
        assert len(found) == len(seen)
    assert [number in found for number in range(32)] == [number in seen for number in range(32)]
    assert "1" not in found


@given(st.sets(st.integers(0, 40)))
def test_runs_are_as_long_as_can_be(numbers: set[int]) -> None:
    runs = [(run.first, run.last) for run in RangeSet(numbers).messages()]
    assert {n for first, last in runs for n in range(first, last + 1)} == numbers
    assert all(one[1] + 1 < other[0] for one, other in pairwise(runs))
