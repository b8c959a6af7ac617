"""Random waypoint: stationary from the first second, exact at waypoints, inside the area."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_scene
from scipy import stats

from fadelab_emulation.mobility.random_waypoint import (
    RandomWaypoint,
    RandomWaypointConfig,
    mean_leg_m,
    pause_probability,
)

AREA_M = (600.0, 400.0)


def walkers(
    devices: int,
    seed: int = 3,
    speed_mps: tuple[float, float] = (5.0, 25.0),
    pause_s: tuple[float, float] = (0.0, 0.0),
    area_m: tuple[float, float] = AREA_M,
) -> RandomWaypoint:
    scene = make_scene(devices, area_m=area_m, seed=seed)
    return RandomWaypointConfig(speed_mps=speed_mps, pause_s=pause_s).build(scene)


def test_mean_leg_of_the_unit_square_and_of_a_thin_strip() -> None:
    exact = (2 + math.sqrt(2) + 5 * math.log(1 + math.sqrt(2))) / 15
    assert mean_leg_m((1.0, 1.0)) == pytest.approx(exact)
    assert mean_leg_m((300.0, 0.3)) == pytest.approx(100.0, rel=1e-3)


def test_mean_leg_of_a_rectangle_agrees_with_sampling() -> None:
    points = np.random.default_rng(0).random((2, 200_000, 2)) * np.array(AREA_M)
    sampled = np.linalg.norm(points[0] - points[1], axis=1)
    error = 4 * sampled.std() / math.sqrt(sampled.size)
    assert mean_leg_m(AREA_M) == pytest.approx(sampled.mean(), abs=error)


def test_pause_probability_by_hand() -> None:
    constant = RandomWaypointConfig(speed_mps=(10.0, 10.0), pause_s=(3.0, 5.0))
    travel_s = mean_leg_m(AREA_M) / 10
    assert pause_probability(constant, AREA_M) == pytest.approx(4 / (4 + travel_s))
    moving = RandomWaypointConfig(speed_mps=(5.0, 25.0))
    assert pause_probability(moving, AREA_M) == 0.0


def test_statistics_do_not_drift_from_the_first_instant_on() -> None:
    """Speed, place and share of pauses at 0 s against 100 s and against the stationary law."""
    devices = 6000
    model = walkers(devices, pause_s=(0.0, 20.0))
    early, late = model.advance(0.0), model.advance(100.0)
    config = RandomWaypointConfig(speed_mps=(5.0, 25.0), pause_s=(0.0, 20.0))
    pausing = pause_probability(config, AREA_M)
    for motion in (early, late):
        speed = np.linalg.norm(motion.velocity_mps, axis=1)
        moving = speed > 0
        share_error = 4 * math.sqrt(pausing * (1 - pausing) / devices)
        assert 1 - moving.mean() == pytest.approx(pausing, abs=share_error)
        # With density proportional to 1/speed, the logarithm of the speed is uniform.
        quantile = np.log(speed[moving] / 5) / math.log(5)
        assert stats.kstest(quantile, "uniform").pvalue > 1e-3
        assert speed[moving].mean() == pytest.approx(20 / math.log(5), rel=0.03)
    for axis in (0, 1):
        pair = early.position_m[:, axis], late.position_m[:, axis]
        assert stats.ks_2samp(*pair).pvalue > 1e-3
    from_centre = [
        np.linalg.norm(m.position_m - np.array([300, 200]), axis=1) for m in (early, late)
    ]
    assert stats.ks_2samp(*from_centre).pvalue > 1e-3


def test_the_start_is_denser_in_the_centre_than_uniform_places() -> None:
    x_m = walkers(4000).advance(0.0).position_m[:, 0]
    assert stats.kstest(x_m / AREA_M[0], "uniform").pvalue < 1e-6
    assert x_m.var() < 0.8 * AREA_M[0] ** 2 / 12


def test_residual_pauses_follow_the_equilibrium_law() -> None:
    """For pauses of exactly 10 s, the time left of the pause at the start is uniform over 10 s."""
    model = walkers(3000, pause_s=(10.0, 10.0))
    standing = ~model.advance(0.0).velocity_mps.any(axis=1)
    ends_s = np.full(3000, np.nan)
    for tick in range(1, 101):
        moves = model.advance(0.1).velocity_mps.any(axis=1)
        ends_s[standing & moves & np.isnan(ends_s)] = tick * 0.1
    ends_s = ends_s[standing]
    assert standing.sum() > 300
    assert not np.isnan(ends_s).any()
    # The half tick centres the time of an end that is known to a tick only.
    assert stats.kstest((ends_s - 0.05) / 10, "uniform").pvalue > 1e-3


def test_the_way_left_of_the_first_leg_is_that_of_a_length_biased_leg() -> None:
    """At constant speed the mean way left is E[L^2] / 2 E[L], with E[L^2] = (a^2 + b^2) / 6."""
    devices = 4000
    model = walkers(devices, speed_mps=(10.0, 10.0))
    heading = model.advance(0.0).velocity_mps
    left_m = np.full(devices, np.nan)
    for tick in range(1, 150):
        turned = ~np.isclose(model.advance(0.5).velocity_mps, heading).all(axis=1)
        left_m[turned & np.isnan(left_m)] = 10.0 * 0.5 * (tick - 0.5)
    assert not np.isnan(left_m).any()
    expected_m = (600**2 + 400**2) / 12 / mean_leg_m(AREA_M)
    assert left_m.mean() == pytest.approx(expected_m, abs=4 * left_m.std() / math.sqrt(devices))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    tick_s=st.floats(0.05, 40.0),
    width_m=st.floats(1.0, 900.0),
    height_m=st.floats(1.0, 900.0),
    greatest_mps=st.floats(1.0, 40.0),
    pause_s=st.floats(0.0, 5.0),
)
def test_devices_stay_inside_and_keep_to_their_speed(
    seed: int,
    tick_s: float,
    width_m: float,
    height_m: float,
    greatest_mps: float,
    pause_s: float,
) -> None:
    model = walkers(5, seed, (1.0, greatest_mps), (0.0, pause_s), (width_m, height_m))
    before = model.advance(0.0)
    for _ in range(20):
        after = model.advance(tick_s)
        assert np.all(after.position_m >= 0)
        assert np.all(after.position_m <= np.array([width_m, height_m]))
        straight_m = np.linalg.norm(after.position_m - before.position_m, axis=1)
        assert np.all(straight_m <= after.travelled_m + 1e-6)
        assert np.all(after.travelled_m <= greatest_mps * tick_s * (1 + 1e-9))
        before = after


def test_a_tick_that_holds_many_waypoints_ends_where_short_ticks_end() -> None:
    whole, parts = walkers(40, pause_s=(0.0, 4.0)), walkers(40, pause_s=(0.0, 4.0))
    once = whole.advance(200.0)
    travelled_m = np.zeros(40)
    for _ in range(1600):
        often = parts.advance(0.125)
        travelled_m += often.travelled_m
    assert np.allclose(once.position_m, often.position_m, atol=1e-6)
    assert np.allclose(once.velocity_mps, often.velocity_mps, atol=1e-9)
    assert np.allclose(once.travelled_m, travelled_m, atol=1e-6)
    # The whole way is far more than one leg, so waypoints were passed inside the one tick.
    assert once.travelled_m.min() > math.hypot(*AREA_M)


def test_a_device_walks_its_way_whatever_the_number_of_others() -> None:
    few, many = walkers(4), walkers(50)
    for _ in range(50):
        a, b = few.advance(1.0), many.advance(1.0)
        assert np.array_equal(a.position_m, b.position_m[:4])


def test_another_seed_is_another_way() -> None:
    assert not np.allclose(
        walkers(5, seed=1).advance(0.0).position_m, walkers(5, seed=2).advance(0.0).position_m
    )


@pytest.mark.parametrize(
    ("speed_mps", "pause_s", "sentence"),
    [
        ((30.0, 15.0), (0.0, 1.0), "the smaller bound comes first, but 30 is greater than 15"),
        ((15.0, 30.0), (5.0, 1.0), "the smaller bound comes first, but 5 is greater than 1"),
        ((0.0, 30.0), (0.0, 1.0), "greater than 0"),
        ((1.0, 30.0), (-1.0, 1.0), "greater than or equal to 0"),
    ],
)
def test_impossible_bounds_are_refused(
    speed_mps: tuple[float, float], pause_s: tuple[float, float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        RandomWaypointConfig(speed_mps=speed_mps, pause_s=pause_s)
