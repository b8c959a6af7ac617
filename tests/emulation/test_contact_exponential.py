"""Exponential contact: means, independence, stationarity, no memory."""

from itertools import pairwise

import numpy as np
import pytest
from scenes import make_scene
from sights import opened, predicted, sight, sites

from fadelab_emulation.contact.base import ContactState
from fadelab_emulation.contact.exponential import ExponentialConfig
from fadelab_emulation.link_state import BoolArray

CONTACT_S, GAP_S = 6.0, 14.0


def run(
    devices: int, ticks: int, *, tick_s: float = 0.1, seed: int = 1, mean_contact_s: float = 6.0
) -> list[ContactState]:
    scene = make_scene(devices, seed=seed)
    config = ExponentialConfig(mean_contact_s=mean_contact_s, mean_gap_s=GAP_S)
    model = config.build(scene)
    place_m = np.tile([10.0, 20.0], (devices, 1))
    return [model.update(sight(scene, place_m, t_s=tick * tick_s)) for tick in range(ticks)]


def whole_runs(is_open: BoolArray, value: bool) -> np.ndarray:
    """Return the lengths in ticks of the runs of ``value`` that begin and end inside."""
    lengths = []
    for device in is_open.T:
        edges = np.flatnonzero(np.diff(device.astype(np.int8))) + 1
        lengths += [end - start for start, end in pairwise(edges) if device[start] == value]
    return np.array(lengths)


def test_contacts_and_gaps_have_the_means_and_the_spread_of_exponentials() -> None:
    """About 100 windows of each of 60 devices: standard error 1.3 %, of which four are allowed.

    A percent more is for gaps and contacts that no tick sees.
    """
    is_open = opened(run(60, 20_000))
    for value, mean_s in ((True, CONTACT_S), (False, GAP_S)):
        lasted_s = whole_runs(is_open, value=value) * 0.1
        assert len(lasted_s) > 5000
        assert lasted_s.mean() == pytest.approx(mean_s, rel=0.065)
        assert lasted_s.std() == pytest.approx(mean_s, rel=0.1)


def test_the_process_is_stationary_from_the_first_tick() -> None:
    """Share in contact 0.3, at every instant, within 4.5 sigma of 4000 devices."""
    is_open = opened(run(4000, 40, tick_s=1.0))
    share = is_open.mean(axis=1)
    sigma = np.sqrt(0.3 * 0.7 / 4000)
    assert np.all(np.abs(share - 0.3) < 4.5 * sigma)


def test_what_is_left_of_the_first_contact_has_the_whole_mean() -> None:
    is_open = opened(run(4000, 1000))
    first = is_open[:, is_open[0]]
    left_s = np.argmin(first, axis=0)[~first.all(axis=0)] * 0.1
    assert left_s.mean() == pytest.approx(CONTACT_S + 0.05, rel=4.5 / np.sqrt(1200))


def test_devices_do_not_depend_on_each_other_nor_on_how_many_there_are() -> None:
    few, many = opened(run(3, 2000)), opened(run(50, 2000))
    assert np.array_equal(few, many[:, :3])
    correlation = np.corrcoef(many.T.astype(np.float64))[~np.eye(50, dtype=np.bool_)]
    assert abs(correlation.mean()) < 0.02


def test_a_finer_tick_sees_the_same_process() -> None:
    coarse, fine = opened(run(20, 500, tick_s=0.4)), opened(run(20, 2000, tick_s=0.1))
    assert np.array_equal(coarse, fine[::4])


def test_another_seed_gives_other_windows() -> None:
    assert not np.array_equal(opened(run(5, 1000)), opened(run(5, 1000, seed=2)))


def test_the_prediction_is_the_mean_at_every_moment() -> None:
    states = run(20, 500)
    assert np.array_equal(predicted(states), np.where(opened(states), CONTACT_S, 0.0))
    assert predicted(run(20, 500, mean_contact_s=1e5)).max() == 3600.0
    assert not sites(states).any()


def test_means_below_a_tick_are_refused() -> None:
    config = ExponentialConfig(mean_contact_s=0.5, mean_gap_s=0.05)
    with pytest.raises(ValueError, match=r"a mean_gap_s of 0.05 s is shorter than the tick of 0.1"):
        config.check_tick(0.1)
    config.check_tick(0.05)
