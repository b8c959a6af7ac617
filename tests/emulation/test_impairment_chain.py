"""The loss chain by itself: rates, bursts, extremes, seeds."""

import numpy as np
import pytest
from burst_statistics import burst_lengths, chi_square_bound, geometric_chi_square

from fadelab_emulation.backends.impairment.base import Direction, LaneLoss
from fadelab_emulation.backends.impairment.chain import (
    HIGHEST,
    LossChain,
    first_state,
    loss_sequence,
    next_state,
    scrambled,
    thresholds,
)

BURSTS = LaneLoss(in_good=0.0, in_bad=1.0, to_bad=0.01, to_good=0.1)


def test_states_follow_marsaglias_recurrence() -> None:
    # Known answers: the numbers that follow 2463534242, the seed of the paper's example.
    state = next_state(2463534242)
    assert state == 723471715
    assert next_state(state) == 2497366906


def test_no_state_leads_to_zero_and_scrambling_is_one_to_one() -> None:
    states = [1, 2, 0x80000000, HIGHEST, 12345]
    assert 0 not in [next_state(state) for state in states]
    assert scrambled(0) == 0
    assert len({scrambled(state) for state in range(1, 10_000)} - {0}) == 9_999
    with pytest.raises(ValueError, match="random state"):
        LossChain(0, BURSTS)


@pytest.mark.parametrize("state", [1, HIGHEST])
def test_probability_one_always_loses_and_zero_never(state: int) -> None:
    always = LaneLoss(1.0, 1.0, 0.5, 0.5)
    never = LaneLoss(0.0, 0.0, 0.5, 0.5)
    assert thresholds(LaneLoss(0.0, 1.0, 0.0, 1.0)) == (0, HIGHEST, 0, HIGHEST)
    assert loss_sequence(state, always, 10_000).all()
    assert not loss_sequence(state, never, 10_000).any()


@pytest.mark.parametrize("probability", [0.001, 0.05, 0.5])
def test_independent_losses_have_their_rate_and_do_not_follow_each_other(
    probability: float,
) -> None:
    packets = 200_000
    loss = LaneLoss(probability, probability, 0.0, 1.0)
    lost = loss_sequence(first_state(3, 0, Direction.UP, 0), loss, packets)
    deviation = np.sqrt(packets * probability * (1 - probability))
    assert abs(lost.sum() - packets * probability) < 3 * deviation
    pairs = packets * probability**2
    assert abs((lost[1:] & lost[:-1]).sum() - pairs) < 4 * np.sqrt(pairs) + 1


def test_bursts_and_gaps_are_geometric() -> None:
    lost = loss_sequence(first_state(1, 4, Direction.DOWN, 2), BURSTS, 300_000)
    for lengths, leave in (
        (burst_lengths(lost), BURSTS.to_good),
        (burst_lengths(~lost), BURSTS.to_bad),
    ):
        statistic, bins = geometric_chi_square(lengths, leave)
        assert bins > 10
        assert statistic < chi_square_bound(bins - 1, deviations=3)


def test_both_states_lose_with_their_own_probability() -> None:
    loss = LaneLoss(in_good=0.02, in_bad=0.6, to_bad=0.05, to_good=0.2)
    packets = 200_000
    expected = 0.02 + 0.05 / 0.25 * (0.6 - 0.02)
    lost = loss_sequence(first_state(9, 0, Direction.UP, 0), loss, packets)
    # Losses of a chain are more alike than independent ones: their variance is that of the share
    # of bad packets, (1 + c) / (1 - c) times as large with the correlation c = 1 - 0.25.
    variance = 0.2 * 0.8 * 0.58**2 * (1.75 / 0.25) + 0.2 * 0.24 + 0.8 * 0.0196
    assert abs(lost.mean() - expected) < 3 * np.sqrt(variance / packets)


def test_every_class_at_every_port_has_random_numbers_of_its_own() -> None:
    states = {
        first_state(seed, device, direction, lane)
        for seed in (1, 2)
        for device in range(5)
        for direction in Direction
        for lane in range(3)
    }
    assert len(states) == 2 * 5 * 2 * 3
    assert first_state(1, 0, Direction.UP, 0) == first_state(1, 0, Direction.UP, 0)


def test_a_change_leaves_the_chain_where_it_is() -> None:
    chain = LossChain(first_state(1, 0, Direction.UP, 0), LaneLoss(0.0, 1.0, 1.0, 0.0))
    assert chain.lost()
    chain.change(LaneLoss(0.0, 1.0, 0.0, 0.0))
    assert all(chain.lost() for _ in range(1000))
    chain.change(LaneLoss(0.0, 1.0, 0.0, 1.0))
    assert not chain.lost()
