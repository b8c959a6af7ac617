"""Manhattan grid: on the streets, turning as told, every block equally busy."""

import math

import numpy as np
import pytest
from scenes import make_scene
from scipy import stats

from fadelab_emulation.link_state import BoolArray, FloatArray, IntArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.mobility.manhattan import Manhattan, ManhattanConfig

AREA_M = (1000.0, 700.0)
BLOCK_M = 100.0


def traffic(
    devices: int, config: ManhattanConfig, area_m: tuple[float, float] = AREA_M
) -> Manhattan:
    return config.build(make_scene(devices, area_m=area_m, seed=2))


def on_street(position_m: FloatArray, config: ManhattanConfig, first_m: FloatArray) -> BoolArray:
    beyond = (position_m - first_m) / config.block_m
    near: BoolArray = np.isclose(beyond, np.rint(beyond), rtol=0, atol=1e-9)
    return near.any(axis=1)


def direction(motion: Motion) -> IntArray:
    """Return headings as steps on the grid, shape ``(devices, 2)``."""
    return np.rint(motion.velocity_mps / np.abs(motion.velocity_mps).max(axis=1)[:, None]).astype(
        np.int64
    )


def turns(model: Manhattan, rounds: int) -> tuple[FloatArray, IntArray, IntArray]:
    """Return crossing, heading and turn (left 1, straight 0, right -1, back 9) of many vehicles.

    With one speed for all, each passes exactly one crossing in the time that a block takes.
    """
    before = model.advance(0.0)
    crossings, headings, taken = [], [], []
    for _ in range(rounds):
        ahead = direction(before)
        places = before.position_m / BLOCK_M
        crossings.append(np.where(ahead > 0, np.ceil(places - 1e-9), np.floor(places + 1e-9)))
        headings.append(ahead)
        before = model.advance(BLOCK_M / 10.0)
        after = direction(before)
        left = ahead[:, 0] * after[:, 1] - ahead[:, 1] * after[:, 0]
        back = (ahead == -after).all(axis=1)
        taken.append(np.where(back, 9, left))
    return np.concatenate(crossings), np.concatenate(headings), np.concatenate(taken)


@pytest.mark.parametrize("probabilities", [(0.25, 0.5, 0.25), (0.2, 0.7, 0.1)])
def test_vehicles_turn_as_told(probabilities: tuple[float, float, float]) -> None:
    config = ManhattanConfig(speed_mps=(10.0, 10.0), turn_probabilities=probabilities)
    crossings, _, taken = turns(traffic(2500, config), 3)
    inner = ((crossings > 0) & (crossings < np.array([10, 7]))).all(axis=1)
    count = inner.sum()
    assert count > 4000
    for turn, probability in zip((1, 0, -1), probabilities, strict=True):
        error = 4 * math.sqrt(probability * (1 - probability) / count)
        assert (taken[inner] == turn).mean() == pytest.approx(probability, abs=error)
    assert not (taken[inner] == 9).any()


def test_at_the_border_both_other_streets_are_equally_likely() -> None:
    config = ManhattanConfig(speed_mps=(10.0, 10.0))
    crossings, ahead, taken = turns(traffic(2500, config), 3)
    last = np.array([10, 7])
    outwards = (crossings == last).astype(int) - (crossings == 0).astype(int)
    side, corner = np.abs(outwards).sum(axis=1) == 1, outwards.all(axis=1)
    assert not (taken == 9).any()
    assert set(np.unique(taken[corner])) == {-1, 1}
    missing = ahead[:, 0] * outwards[:, 1] - ahead[:, 1] * outwards[:, 0]
    for turn in (1, 0, -1):
        cases = taken[side & (missing == turn)]
        others = [other for other in (1, 0, -1) if other != turn]
        assert set(np.unique(cases)) == set(others)
        share = (cases == others[0]).mean()
        assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(len(cases)))


@pytest.mark.parametrize("area_m", [(1000.0, 700.0), (950.0, 333.0), (100.0, 100.0)])
def test_vehicles_are_on_streets_and_move_along_them(area_m: tuple[float, float]) -> None:
    config = ManhattanConfig(speed_mps=(5.0, 30.0), stop_probability=0.2, stop_s=(0.0, 3.0))
    model = traffic(300, config, area_m)
    first_m = np.mod(np.array(area_m), BLOCK_M) / 2
    for _ in range(200):
        motion = model.advance(0.9)
        assert on_street(motion.position_m, config, first_m).all()
        assert np.all(motion.position_m >= first_m)
        assert np.all(motion.position_m <= np.array(area_m) - first_m)
        assert np.all((motion.velocity_mps == 0).any(axis=1))


def test_every_block_is_equally_busy_early_and_late() -> None:
    devices = 3000
    config = ManhattanConfig(speed_mps=(5.0, 25.0), turn_probabilities=(0.1, 0.6, 0.3))
    model = traffic(devices, config, (400.0, 200.0))
    for motion in (model.advance(0.0), model.advance(50.0)):
        middle = np.floor(motion.position_m / BLOCK_M + 1e-9)
        edges = np.column_stack([middle, direction(motion)])
        _, counts = np.unique(edges, axis=0, return_counts=True)
        assert len(counts) == 2 * (4 * 3 + 5 * 2)
        assert stats.chisquare(counts).pvalue > 1e-3
        # With density proportional to 1/speed, the logarithm of the speed is uniform.
        speed = np.abs(motion.velocity_mps).max(axis=1)
        assert stats.kstest(np.log(speed / 5) / math.log(5), "uniform").pvalue > 1e-3


def test_waits_take_their_share_of_time_early_and_late() -> None:
    """Half of the crossings cost 20 s on average, and each block 10 s: half of the time."""
    devices = 2000
    config = ManhattanConfig(speed_mps=(10.0, 10.0), stop_probability=0.5, stop_s=(10.0, 30.0))
    model = traffic(devices, config)
    for motion in (model.advance(0.0), model.advance(100.0)):
        waiting = ~motion.velocity_mps.any(axis=1)
        assert waiting.mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(devices))
        at_crossing = np.isclose(motion.position_m / BLOCK_M, np.rint(motion.position_m / BLOCK_M))
        assert at_crossing[waiting].all()


def test_the_way_is_speed_times_time_through_turns() -> None:
    config = ManhattanConfig(speed_mps=(12.5, 12.5), block_m=50.0)
    assert np.allclose(traffic(40, config).advance(400.0).travelled_m, 12.5 * 400.0)


def test_the_first_wait_is_found_in_its_middle() -> None:
    """Of waits of exactly 20 s, a uniform part is left at the start."""
    config = ManhattanConfig(speed_mps=(10.0, 10.0), stop_probability=0.5, stop_s=(20.0, 20.0))
    model = traffic(2000, config)
    waiting = ~model.advance(0.0).velocity_mps.any(axis=1)
    ends_s = np.full(2000, np.nan)
    for tick in range(81):
        moves = model.advance(0.25).velocity_mps.any(axis=1)
        ends_s[waiting & moves & np.isnan(ends_s)] = 0.25 * tick + 0.125
    assert waiting.sum() > 500
    assert stats.kstest(ends_s[waiting] / 20, "uniform").pvalue > 1e-3
