"""Random direction: uniform in place and heading at every instant, reflected at the borders."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import make_scene
from scipy import stats

from fadelab_emulation.mobility.mirror import fold
from fadelab_emulation.mobility.random_direction import RandomDirection, RandomDirectionConfig

AREA_M = (600.0, 400.0)


def walkers(devices: int, config: RandomDirectionConfig) -> RandomDirection:
    return config.build(make_scene(devices, area_m=AREA_M, seed=5))


@pytest.mark.parametrize(
    "config",
    [
        RandomDirectionConfig(speed_mps=(5.0, 25.0), mean_leg_s=20.0),
        RandomDirectionConfig(speed_mps=(5.0, 25.0), leg_s=(5.0, 35.0)),
    ],
    ids=["exponential", "uniform"],
)
def test_place_heading_and_speed_are_uniform_early_and_late(config: RandomDirectionConfig) -> None:
    model = walkers(3000, config)
    for motion in (model.advance(0.0), model.advance(60.0)):
        for axis in (0, 1):
            place = motion.position_m[:, axis] / AREA_M[axis]
            assert stats.kstest(place, "uniform").pvalue > 1e-3
        east, north = motion.velocity_mps.T
        heading = np.arctan2(north, east) / (2 * math.pi) % 1
        assert stats.kstest(heading, "uniform").pvalue > 1e-3
        speed = (np.hypot(east, north) - 5) / 20
        assert stats.kstest(speed, "uniform").pvalue > 1e-3


def first_leg_rest_s(config: RandomDirectionConfig, longest_s: float) -> np.ndarray:
    """Return when each device's speed, which reflection leaves alone, changes for the first time."""
    model = walkers(2000, config)
    speed = np.linalg.norm(model.advance(0.0).velocity_mps, axis=1)
    rest_s = np.full(2000, np.nan)
    for tick in range(int(longest_s / 0.5)):
        now = np.linalg.norm(model.advance(0.5).velocity_mps, axis=1)
        rest_s[np.isnan(rest_s) & ~np.isclose(now, speed, rtol=1e-9)] = 0.5 * tick + 0.25
    return rest_s


def test_the_first_leg_is_found_in_its_middle() -> None:
    """Of legs of exactly 30 s a uniform part is left; of exponential legs, an exponential one."""
    exact = RandomDirectionConfig(speed_mps=(5.0, 25.0), leg_s=(30.0, 30.0))
    rest_s = first_leg_rest_s(exact, 31.0)
    assert not np.isnan(rest_s).any()
    assert stats.kstest(rest_s / 30, "uniform").pvalue > 1e-3
    exponential = RandomDirectionConfig(speed_mps=(5.0, 25.0), mean_leg_s=10.0)
    rest_s = first_leg_rest_s(exponential, 20.0)
    for after_s in (5.0, 10.0, 20.0):
        left = 1 - (rest_s < after_s).mean()
        assert left == pytest.approx(math.exp(-after_s / 10), abs=4 * 0.5 / math.sqrt(2000))


def test_the_way_is_speed_times_time_through_turns_and_reflections() -> None:
    model = walkers(50, RandomDirectionConfig(speed_mps=(20.0, 20.0), mean_leg_s=3.0))
    assert np.allclose(model.advance(500.0).travelled_m, 20.0 * 500.0)


def test_a_border_reflects() -> None:
    """A device that would be 30 m beyond the eastern border is 30 m inside, going west."""
    area_m = np.array([600.0, 400.0])
    outside, velocity = np.array([[630.0, 100.0]]), np.array([[10.0, 1.0]])
    position, folded = fold(outside, velocity, area_m)
    assert position.tolist() == [[570.0, 100.0]]
    assert folded.tolist() == [[-10.0, 1.0]]
    position, folded = fold(np.array([[-30.0, 830.0]]), np.array([[-10.0, 1.0]]), area_m)
    assert position.tolist() == [[30.0, 30.0]]
    assert folded.tolist() == [[10.0, 1.0]]


@given(
    x_m=st.floats(-1e6, 1e6),
    y_m=st.floats(-1e6, 1e6),
    width_m=st.floats(0.01, 1e4),
    height_m=st.floats(0.01, 1e4),
)
def test_folding_always_ends_inside(
    x_m: float, y_m: float, width_m: float, height_m: float
) -> None:
    area_m = np.array([width_m, height_m])
    position, _ = fold(np.array([[x_m, y_m]]), np.zeros((1, 2)), area_m)
    assert np.all(position >= 0)
    assert np.all(position <= area_m)
