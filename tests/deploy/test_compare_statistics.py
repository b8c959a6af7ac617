"""Intervals hold what they promise, and worked examples come out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab.results.paired import estimate_mean, paired_difference

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12)


def test_three_values_by_hand() -> None:
    found = estimate_mean([1.0, 2.0, 3.0])
    # t(2, 0.975) = 4.302653, s = 1, so the half width is 4.302653 / sqrt(3).
    assert (found.n, found.mean, found.std) == (3, 2.0, 1.0)
    assert found.half_width == pytest.approx(2.484138, abs=1e-6)
    assert found.low == pytest.approx(-0.484138, abs=1e-6)
    assert found.high == pytest.approx(4.484138, abs=1e-6)


@pytest.mark.parametrize(
    ("confidence", "n", "quantile"),
    # From any printed table of Student's t.
    [(0.95, 2, 12.706), (0.95, 5, 2.776), (0.95, 31, 2.042), (0.90, 10, 1.833), (0.99, 4, 5.841)],
)
def test_quantiles_are_those_of_the_tables(confidence: float, n: int, quantile: float) -> None:
    values = [0.0, 1.0] * n
    found = estimate_mean(values[:n], confidence)
    assert found.std is not None
    assert found.half_width is not None
    assert found.half_width * math.sqrt(n) / found.std == pytest.approx(quantile, abs=5e-4)


def test_a_single_run_tells_nothing_of_its_spread() -> None:
    found = estimate_mean([0.7])
    assert (found.mean, found.std, found.low, found.high) == (0.7, None, None, None)


def test_equal_values_have_no_spread_at_all() -> None:
    found = estimate_mean([0.1] * 7)
    assert found.std == found.half_width == 0.0


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_what_is_no_sample_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        estimate_mean(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_an_impossible_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate_mean([1.0, 2.0], confidence)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_intervals_cover_the_true_mean_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(20)
    samples = rng.normal(3.0, 2.0, (4000, n))
    found = [estimate_mean(sample.tolist()) for sample in samples]
    covered = sum(f.low <= 3.0 <= f.high for f in found if f.low is not None and f.high is not None)
    # Four standard deviations of a binomial count of 4000 draws with probability 0.95.
    assert abs(covered - 3800) < 4 * math.sqrt(4000 * 0.95 * 0.05)


def test_paired_intervals_cover_the_true_difference_and_are_narrower() -> None:
    rng = np.random.default_rng(21)
    covered, narrower = 0, 0
    for _ in range(2000):
        seeds = rng.normal(0.0, 1.0, 5)
        one = {seed: value + rng.normal(0.3, 0.1) for seed, value in enumerate(seeds)}
        two = {seed: value + rng.normal(0.0, 0.1) for seed, value in enumerate(seeds)}
        found = paired_difference(one, two)
        assert found is not None
        low, high = found.estimate.low, found.estimate.high
        alone = estimate_mean(list(one.values())).half_width
        assert low is not None
        assert high is not None
        assert alone is not None
        covered += low <= 0.3 <= high
        narrower += high - low < 2 * alone
    assert abs(covered - 1900) < 4 * math.sqrt(2000 * 0.95 * 0.05)
    assert narrower > 1900


def test_pairs_by_hand() -> None:
    found = paired_difference({1: 0.8, 2: 0.9, 3: 0.7}, {2: 0.6, 3: 0.6, 4: 0.1})
    assert found is not None
    assert (found.pairs, found.unpaired) == ((2, 3), (1, 4))
    # Differences 0.3 and 0.1: mean 0.2, s = 0.141421, t(1, 0.975) = 12.7062.
    assert found.estimate.mean == pytest.approx(0.2)
    assert found.estimate.half_width == pytest.approx(1.27062, abs=1e-5)
    assert found.relative == pytest.approx(0.2 / 0.6)


def test_nothing_to_pair() -> None:
    assert paired_difference({1: 0.5}, {2: 0.5}) is None


@given(values=VALUES, shift=st.floats(-1e3, 1e3), scale=st.floats(0.01, 100))
def test_intervals_move_and_stretch_with_their_values(
    values: list[float], shift: float, scale: float
) -> None:
    before = estimate_mean(values)
    after = estimate_mean([scale * value + shift for value in values])
    assert before.half_width is not None
    size = 1e-9 * scale * (1 + max(map(abs, values)) + abs(shift))
    assert after.mean == pytest.approx(scale * before.mean + shift, abs=size + 1e-9)
    assert after.half_width == pytest.approx(
        scale * before.half_width, rel=1e-6, abs=20 * size + 1e-6
    )


@given(values=VALUES)
def test_a_difference_to_oneself_is_zero_and_reversing_it_turns_its_sign(
    values: list[float],
) -> None:
    one = dict(enumerate(values))
    two = dict(enumerate(reversed(values)))
    same, forth, back = (
        paired_difference(one, one),
        paired_difference(one, two),
        paired_difference(two, one),
    )
    assert same is not None
    assert forth is not None
    assert back is not None
    assert (same.estimate.mean, same.estimate.half_width) == (0.0, 0.0)
    assert forth.estimate.mean == -back.estimate.mean
    assert forth.estimate.half_width == back.estimate.half_width
