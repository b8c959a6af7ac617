"""Highway: lanes, speeds by direction, and vehicles that come back as others."""

import math

import numpy as np
import pytest
from scenes import make_scene
from scipy import stats

from fadelab_emulation.mobility.highway import Highway, HighwayConfig

AREA_M = (1000.0, 100.0)


def traffic(devices: int, config: HighwayConfig) -> Highway:
    return config.build(make_scene(devices, area_m=AREA_M, seed=4))


def test_lanes_lie_side_by_side_and_are_kept() -> None:
    config = HighwayConfig(
        speed_mps=(20.0, 30.0), lanes_per_direction=2, lane_width_m=3.5, centre_y_m=40.0
    )
    model = traffic(8, config)
    # Traffic drives on the right: eastbound lanes lie south of the centre.
    expected_m = [38.25, 41.75, 34.75, 45.25] * 2
    for _ in range(100):
        motion = model.advance(2.0)
        assert motion.position_m[:, 1].tolist() == expected_m
        assert motion.present is None
        assert np.all(motion.velocity_mps[:, 1] == 0)
        assert np.all(motion.velocity_mps[::2, 0] > 0)
        assert np.all(motion.velocity_mps[1::2, 0] < 0)


def test_the_road_lies_in_the_middle_unless_told_otherwise() -> None:
    y_m = traffic(6, HighwayConfig(speed_mps=(20.0, 30.0))).advance(0.0).position_m[:, 1]
    assert y_m.tolist() == [48.0, 52.0, 44.0, 56.0, 40.0, 60.0]


def test_each_direction_keeps_to_its_speeds_and_fills_its_lanes_evenly() -> None:
    config = HighwayConfig(speed_mps=(20.0, 40.0), speed_west_mps=(5.0, 10.0))
    model = traffic(3000, config)
    for motion in (model.advance(0.0), model.advance(150.0)):
        for side, least in ((0, 20.0), (1, 5.0)):
            speed = np.abs(motion.velocity_mps[side::2, 0])
            # Uniform per pass is log-uniform at an instant: a slow pass lasts longer.
            assert stats.kstest(np.log2(speed / least), "uniform").pvalue > 1e-3
            assert stats.kstest(motion.position_m[side::2, 0] / 1000, "uniform").pvalue > 1e-3


def test_who_comes_back_is_another_vehicle_on_the_same_lane() -> None:
    config = HighwayConfig(speed_mps=(20.0, 30.0))
    model = traffic(100, config)
    before = model.advance(0.0)
    jumped = np.zeros(100, dtype=np.bool_)
    for _ in range(60):
        after = model.advance(1.0)
        moved_m = after.position_m[:, 0] - before.position_m[:, 0]
        back = np.sign(moved_m) != np.sign(before.velocity_mps[:, 0])
        # Whoever stays on the road keeps its speed; whoever comes back has travelled the way back.
        assert np.array_equal(after.velocity_mps[~back], before.velocity_mps[~back])
        assert np.all(np.abs(after.velocity_mps[back, 0]) != np.abs(before.velocity_mps[back, 0]))
        assert np.all(after.travelled_m[back] > 1000)
        assert np.all(after.travelled_m[~back] <= 30.0 + 1e-9)
        jumped |= back
        before = after
    assert jumped.all()  # at 20 m/s at least, the 1000 m take 50 s at most


def test_the_time_between_leaving_and_entering_is_spent_absent() -> None:
    """A pass takes 40 s and the time away 10 s on average: a fifth is away."""
    devices = 2000
    config = HighwayConfig(speed_mps=(25.0, 25.0), away_s=(5.0, 15.0))
    model = traffic(devices, config)
    for motion in (model.advance(0.0), model.advance(100.0)):
        assert motion.present is not None
        away = ~motion.present
        assert away.mean() == pytest.approx(0.2, abs=4 * 0.4 / math.sqrt(devices))
        assert not motion.velocity_mps[away].any()
        assert set(motion.position_m[away, 0].tolist()) == {0.0, 1000.0}
