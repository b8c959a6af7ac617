"""Gauss-Markov: mean, spread and memory of speed and heading, stationary from the start."""

import math

import numpy as np
import pytest
from scenes import make_scene
from scipy import stats

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.gauss_markov import GaussMarkov, GaussMarkovConfig

AREA_M = (600.0, 400.0)
HUGE_M = (1e6, 1e6)


def walkers(
    devices: int, config: GaussMarkovConfig, area_m: tuple[float, float] = AREA_M
) -> GaussMarkov:
    return config.build(make_scene(devices, area_m=area_m, seed=8))


def speeds(model: GaussMarkov, duration_s: float) -> FloatArray:
    return np.linalg.norm(model.advance(duration_s).velocity_mps, axis=1)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_speed_has_its_mean_spread_and_memory_per_step(memory: float) -> None:
    devices = 20_000
    config = GaussMarkovConfig(
        mean_speed_mps=15.0, speed_std_mps=3.0, memory=memory, time_step_s=2.0
    )
    model = walkers(devices, config)
    history = [speeds(model, 0.0), *(speeds(model, 2.0) for _ in range(3))]
    for speed in history:
        assert speed.mean() == pytest.approx(15.0, abs=4 * 3 / math.sqrt(devices))
        assert speed.std() == pytest.approx(3.0, abs=4 * 3 / math.sqrt(2 * devices))
    for lag in (1, 2, 3):
        correlation = np.corrcoef(history[0], history[lag])[0, 1]
        assert correlation == pytest.approx(memory**lag, abs=4 / math.sqrt(devices))


def test_heading_wanders_about_a_mean_that_it_keeps() -> None:
    """Two steps apart, headings differ by a variance of 2 s^2 (1 - a^2), whatever the mean."""
    devices = 20_000
    config = GaussMarkovConfig(mean_speed_mps=10.0, heading_std_rad=0.2, memory=0.6)
    model = walkers(devices, config, HUGE_M)
    first, last = model.advance(0.0), model.advance(2.0)
    turned = np.arctan2(*last.velocity_mps.T[::-1]) - np.arctan2(*first.velocity_mps.T[::-1])
    turned = (turned + math.pi) % (2 * math.pi) - math.pi
    variance = 2 * 0.2**2 * (1 - 0.6**2)
    assert turned.mean() == pytest.approx(0.0, abs=4 * math.sqrt(variance / devices))
    assert turned.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / devices))
    # Without a mean heading to come back to, the variance would be some 25 times as much by now.
    late = np.arctan2(*model.advance(100.0).velocity_mps.T[::-1])
    turned = (late - np.arctan2(*first.velocity_mps.T[::-1]) + math.pi) % (2 * math.pi) - math.pi
    assert turned.var() == pytest.approx(2 * 0.2**2, rel=0.1)


def test_places_are_uniform_early_and_late() -> None:
    config = GaussMarkovConfig(mean_speed_mps=15.0, speed_std_mps=5.0)
    model = walkers(5000, config)
    for motion in (model.advance(0.0), model.advance(150.0)):
        for axis in (0, 1):
            place = motion.position_m[:, axis] / AREA_M[axis]
            assert stats.kstest(place, "uniform").pvalue > 1e-3


def test_a_speed_below_zero_is_a_standstill() -> None:
    """With a spread of twice the mean, 31 % of the normal law lie below 0."""
    devices = 5000
    config = GaussMarkovConfig(mean_speed_mps=1.0, speed_std_mps=2.0, memory=0.5)
    standing = speeds(walkers(devices, config), 0.0) == 0
    share = stats.norm.cdf(-0.5)
    assert standing.mean() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / devices))


def test_velocity_changes_at_time_steps_alone() -> None:
    config = GaussMarkovConfig(mean_speed_mps=15.0, speed_std_mps=5.0, time_step_s=1.0)
    model = walkers(100, config, HUGE_M)
    history = [model.advance(0.25).velocity_mps for _ in range(8)]
    assert np.array_equal(history[0], history[1])
    assert np.array_equal(history[1], history[2])
    assert not np.isclose(history[2], history[3]).any()  # at exactly 1 s
    assert np.array_equal(history[3], history[6])
    assert not np.isclose(history[6], history[7]).any()


def test_the_way_is_the_sum_of_speeds() -> None:
    config = GaussMarkovConfig(mean_speed_mps=15.0, speed_std_mps=0.0, heading_std_rad=1.0)
    assert np.allclose(walkers(50, config).advance(300.0).travelled_m, 15.0 * 300.0)
    varied = GaussMarkovConfig(mean_speed_mps=15.0, speed_std_mps=4.0)
    whole = walkers(50, varied).advance(20.0).travelled_m
    model = walkers(50, varied)
    steps = [speeds(model, 0.0), *(speeds(model, 1.0) for _ in range(19))]
    assert np.allclose(whole, np.sum(steps, axis=0))
