"""Block fading: exponential power of mean 1 for Rayleigh, constant within a block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene
from scipy import stats

from fadelab_emulation.propagation.base import Fading
from fadelab_emulation.propagation.no_fading import NoFadingConfig
from fadelab_emulation.propagation.rayleigh import RayleighConfig

NO_SPEED = np.zeros(4)


def fading(coherence_s: float, devices: int = 4, seed: int = 11) -> Fading:
    return RayleighConfig(coherence_s=coherence_s).build(make_scene(devices, seed=seed))


def test_power_is_exponential_with_mean_one_over_devices_and_over_time() -> None:
    over_devices = fading(1.0, devices=20_000).during(0.0, 1.0, np.zeros(20_000)).power[0]
    over_time = fading(1.0, devices=1).during(0.0, 5000.0, np.zeros(1)).power[:, 0]
    for power in (over_devices, over_time):
        assert stats.kstest(power, "expon").pvalue > 1e-3
        assert power.mean() == pytest.approx(1.0, abs=4 / np.sqrt(power.size))
    neighbours = np.corrcoef(over_time[:-1], over_time[1:])[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(over_time.size)


def test_a_block_outlasts_ticks_until_its_coherence_time_is_over() -> None:
    model = fading(0.3)
    values = [model.during(tick * 0.1, 0.1, NO_SPEED) for tick in range(9)]
    assert all(blocks.share.tolist() == [1.0] for blocks in values)
    first = [blocks.power[0, 0] for blocks in values]
    assert first[0] == first[1] == first[2]
    assert first[3] == first[4] == first[5]
    assert first[6] == first[7] == first[8]
    assert len(set(first)) == 3


def test_blocks_shorter_than_a_tick_are_all_there() -> None:
    blocks = fading(0.02).during(0.1, 0.1, NO_SPEED)
    assert blocks.power.shape == (5, 4)
    assert blocks.share == pytest.approx([0.2] * 5)
    assert np.array_equal(blocks.power[0], fading(0.02).during(0.1, 0.02, NO_SPEED).power[0])


def test_a_block_edge_inside_a_tick_splits_it_by_time() -> None:
    blocks = fading(0.25).during(0.2, 0.1, NO_SPEED)
    assert blocks.share == pytest.approx([0.5, 0.5])
    assert blocks.power.shape == (2, 4)


@given(
    tick=st.integers(0, 100_000),
    tick_s=st.sampled_from([0.01, 0.05, 0.1, 0.3, 1.0]),
    coherence_s=st.floats(0.01, 3.0),
)
def test_shares_add_up_and_stay_positive(tick: int, tick_s: float, coherence_s: float) -> None:
    blocks = fading(coherence_s).during(tick * tick_s, tick_s, NO_SPEED)
    assert blocks.share.sum() == pytest.approx(1.0)
    assert np.all(blocks.share > 0)
    assert len(blocks.share) == len(blocks.power) <= tick_s / coherence_s + 2


def test_any_span_can_be_asked_for_in_any_order() -> None:
    model, other = fading(0.2), fading(0.2)
    late, early = model.during(50.0, 0.1, NO_SPEED), model.during(0.0, 0.1, NO_SPEED)
    assert np.array_equal(other.during(0.0, 0.1, NO_SPEED).power, early.power)
    assert np.array_equal(other.during(50.0, 0.1, NO_SPEED).power, late.power)
    assert not np.array_equal(early.power, late.power)


def test_a_coherence_time_far_below_the_tick_is_refused() -> None:
    RayleighConfig(coherence_s=1e-4).check_tick(0.1)
    with pytest.raises(ValueError, match=r"too short for a tick of 0\.1 s"):
        RayleighConfig(coherence_s=0.99e-4).check_tick(0.1)


def test_without_fading_the_gain_is_one() -> None:
    model = NoFadingConfig().build(make_scene(3))
    blocks = model.during(12.3, 0.1, np.full(3, 9.0))
    assert blocks.power.tolist() == [[1.0, 1.0, 1.0]]
    assert blocks.share.tolist() == [1.0]
    assert (model.law.power.tolist(), model.law.weight.tolist()) == ([1.0], [1.0])
