"""What every mobility model owes: its borders, its way, and independence of tick and company."""

import numpy as np
import pytest
from pydantic import ValidationError
from scenes import make_scene

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.mobility.base import Mobility, MobilityConfig
from fadelab_emulation.mobility.gauss_markov import GaussMarkovConfig
from fadelab_emulation.mobility.highway import HighwayConfig
from fadelab_emulation.mobility.manhattan import ManhattanConfig
from fadelab_emulation.mobility.random_direction import RandomDirectionConfig
from fadelab_emulation.mobility.random_waypoint import RandomWaypointConfig

AREA_M = (400.0, 300.0)
MODELS = [
    RandomWaypointConfig(speed_mps=(5.0, 25.0), pause_s=(0.0, 4.0)),
    RandomDirectionConfig(speed_mps=(0.0, 25.0), mean_leg_s=7.0),
    RandomDirectionConfig(speed_mps=(5.0, 25.0), leg_s=(2.0, 9.0)),
    GaussMarkovConfig(mean_speed_mps=15.0, speed_std_mps=5.0, time_step_s=0.7),
    ManhattanConfig(speed_mps=(5.0, 25.0), block_m=50.0),
    ManhattanConfig(speed_mps=(5.0, 25.0), block_m=70.0, stop_probability=0.5, stop_s=(1.0, 5.0)),
    HighwayConfig(speed_mps=(20.0, 30.0), speed_west_mps=(5.0, 10.0)),
    HighwayConfig(speed_mps=(20.0, 30.0), away_s=(0.0, 10.0)),
]
every_model = pytest.mark.parametrize("config", MODELS, ids=lambda config: config.kind)


def build(config: MobilityConfig, devices: int = 40, seed: int = 3) -> Mobility:
    return config.build(make_scene(devices, area_m=AREA_M, seed=seed))


@every_model
def test_short_ticks_end_where_one_long_tick_ends(config: MobilityConfig) -> None:
    whole, parts = build(config), build(config)
    once = whole.advance(100.0)
    travelled_m = np.zeros(40)
    for _ in range(800):
        often = parts.advance(0.125)
        travelled_m += often.travelled_m
    assert np.allclose(once.position_m, often.position_m, atol=1e-6)
    assert np.allclose(once.velocity_mps, often.velocity_mps, atol=1e-9)
    assert np.allclose(once.travelled_m, travelled_m, atol=1e-6)
    if once.present is not None and often.present is not None:
        assert np.array_equal(once.present, often.present)


@every_model
def test_a_device_goes_its_way_whatever_the_number_of_others(config: MobilityConfig) -> None:
    few, many = build(config, 4), build(config, 50)
    for _ in range(50):
        a, b = few.advance(1.0), many.advance(1.0)
        assert np.array_equal(a.position_m, b.position_m[:4])
        assert np.array_equal(a.velocity_mps, b.velocity_mps[:4])
        assert np.array_equal(a.travelled_m, b.travelled_m[:4])


@every_model
def test_another_seed_is_another_way(config: MobilityConfig) -> None:
    one, other = build(config, seed=1).advance(0.0), build(config, seed=2).advance(0.0)
    assert not np.allclose(one.position_m, other.position_m)


@every_model
@pytest.mark.parametrize(("tick_s", "ticks"), [(0.1, 50), (1.7, 100), (60.0, 8)])
def test_devices_stay_inside_and_travel_at_least_the_straight_way(
    config: MobilityConfig, tick_s: float, ticks: int
) -> None:
    model = build(config)
    before = model.advance(0.0)
    assert not before.travelled_m.any()
    for _ in range(ticks):
        after = model.advance(tick_s)
        assert np.all(after.position_m >= 0)
        assert np.all(after.position_m <= np.array(AREA_M))
        straight_m = np.linalg.norm(after.position_m - before.position_m, axis=1)
        assert np.all(straight_m <= after.travelled_m + 1e-9)
        before = after


@every_model
def test_velocity_is_where_the_next_moment_leads(config: MobilityConfig) -> None:
    model = build(config, 200)
    before = model.advance(3.3)
    after = model.advance(1e-6)
    moved_mps = (after.position_m - before.position_m) / 1e-6
    # Whoever turns within the microsecond is no counterexample; more than a few would be.
    agrees = np.isclose(moved_mps, before.velocity_mps, atol=1e-3).all(axis=1)
    assert agrees.sum() >= 198


@pytest.mark.parametrize(
    ("mobility", "sentence"),
    [
        ({"kind": "random_direction", "speed_mps": [1, 2]}, "leg_s; neither is given"),
        (
            {"kind": "random_direction", "speed_mps": [1, 2], "mean_leg_s": 1, "leg_s": [1, 2]},
            "leg_s; both are given",
        ),
        ({"kind": "random_direction", "speed_mps": [3, 2], "mean_leg_s": 1}, "3 is greater than 2"),
        ({"kind": "random_direction", "speed_mps": [1, 2], "leg_s": [0, 2]}, "greater than 0"),
        ({"kind": "gauss_markov", "mean_speed_mps": 0}, "greater than 0"),
        ({"kind": "gauss_markov", "mean_speed_mps": 9, "memory": 1.1}, "less than or equal to 1"),
        ({"kind": "gauss_markov", "mean_speed_mps": float("nan")}, "finite number"),
        ({"kind": "manhattan", "speed_mps": [0, 9]}, "greater than 0"),
        (
            {"kind": "manhattan", "speed_mps": [1, 9], "turn_probabilities": [0.5, 0.5, 0.5]},
            "must add up to 1, not 1.5",
        ),
        (
            {"kind": "manhattan", "speed_mps": [1, 9], "block_m": 301},
            "a block of 301 m does not fit into the area of 400 m x 300 m",
        ),
        (
            {"kind": "highway", "speed_mps": [1, 9], "centre_y_m": 5},
            "a highway of 24 m width round y = 5 m leaves the area, whose height is 300 m",
        ),
        ({"kind": "highway", "speed_mps": [1, 9], "centre_y_m": 290}, "leaves the area"),
        ({"kind": "highway", "speed_mps": [1, 2000]}, "less than or equal to 1000"),
    ],
)
def test_impossible_settings_are_refused(mobility: object, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RadioConfig.model_validate(
            {
                "area_m": AREA_M,
                "mobility": mobility,
                "rate": {"kind": "fixed", "rate_up_bps": 1e6, "rate_down_bps": 1e6},
            }
        )
