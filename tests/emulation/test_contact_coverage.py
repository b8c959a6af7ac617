"""Coverage: hysteresis, length of passes, predicted remaining contact."""

import numpy as np
import pytest

from fadelab_emulation.contact.always import AlwaysConfig
from fadelab_emulation.contact.base import CONTACT_HORIZON_S
from fadelab_emulation.contact.coverage import Coverage, CoverageConfig
from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.scene import Scene

CENTRE_M = np.array([500.0, 400.0])


def coverage(devices: int, radius_m: float, hysteresis_m: float = 0.0) -> Coverage:
    scene = Scene((1000.0, 800.0), (500.0, 400.0), 5.9e9, devices, 0)
    return CoverageConfig(radius_m=radius_m, hysteresis_m=hysteresis_m).build(scene)


def motion(offset_m: FloatArray, velocity_mps: FloatArray) -> Motion:
    return Motion(CENTRE_M + offset_m, velocity_mps, np.zeros(len(offset_m)))


def drive_straight(
    model: Coverage, start_m: FloatArray, velocity_mps: FloatArray, tick_s: float, ticks: int
) -> tuple[BoolArray, FloatArray]:
    """Drive every device straight on; return open flags and predictions, ``(ticks, devices)``."""
    states = [
        model.update(motion(start_m + velocity_mps * (tick * tick_s), velocity_mps))
        for tick in range(ticks)
    ]
    return np.array([s.is_open for s in states]), np.array([s.predicted_s for s in states])


@pytest.mark.parametrize(("radius_m", "speed_mps"), [(200.0, 10.0), (120.0, 30.0)])
def test_mean_contact_of_straight_passes(radius_m: float, speed_mps: float) -> None:
    """Uniform offsets from -R to R: pi R / 2v, within 2 %."""
    passes = 1000
    offset_m = radius_m * (2 * (np.arange(passes) + 0.5) / passes - 1)
    start_m = np.column_stack([np.full(passes, -1.1 * radius_m), offset_m])
    velocity_mps = np.tile([speed_mps, 0.0], (passes, 1))
    ticks = int(2.2 * radius_m / speed_mps / 0.1)
    is_open, _ = drive_straight(coverage(passes, radius_m), start_m, velocity_mps, 0.1, ticks)
    mean_s = is_open.sum(axis=0).mean() * 0.1
    assert mean_s == pytest.approx(np.pi * radius_m / (2 * speed_mps), rel=0.02)


def test_prediction_of_a_straight_walk_is_the_true_remaining_contact() -> None:
    """Chords at six offsets and four headings: predicted end = exit computed from the chord."""
    radius_m, speed_mps = 150.0, 12.0
    across_m, angle = np.meshgrid([-140.0, -60.0, 0.0, 5.0, 100.0, 149.0], [0.0, 0.7, 2.0, 4.5])
    heading = np.column_stack([np.cos(angle.ravel()), np.sin(angle.ravel())])
    normal = np.column_stack([-heading[:, 1], heading[:, 0]])
    start_m = -200.0 * heading + across_m.ravel()[:, None] * normal
    half_chord_m = np.sqrt(radius_m**2 - across_m.ravel() ** 2)
    exit_s = (200.0 + half_chord_m) / speed_mps
    is_open, predicted_s = drive_straight(
        coverage(len(start_m), radius_m), start_m, speed_mps * heading, 0.1, 400
    )
    true_s = exit_s - np.arange(400)[:, None] * 0.1
    assert is_open.any(axis=0).all()
    assert np.allclose(predicted_s[is_open], true_s[is_open], atol=1e-9)
    assert not predicted_s[~is_open].any()


def test_the_prediction_does_not_see_a_turn_ahead() -> None:
    model = coverage(1, 100.0)
    ahead = model.update(motion(np.array([[0.0, 0.0]]), np.array([[10.0, 0.0]])))
    turned = model.update(motion(np.array([[60.0, 0.0]]), np.array([[-10.0, 0.0]])))
    assert ahead.predicted_s[0] == pytest.approx(10.0)
    assert turned.predicted_s[0] == pytest.approx(16.0)


def test_hysteresis_opens_further_inside_than_it_closes() -> None:
    model = coverage(1, 100.0, hysteresis_m=10.0)
    distances_m = [105, 95, 91, 90, 95, 100, 100.1, 99, 91, 89]
    opened = [
        bool(model.update(motion(np.array([[d, 0.0]]), np.array([[1.0, 0.0]]))).is_open[0])
        for d in distances_m
    ]
    assert opened == [False, False, False, True, True, True, False, False, False, True]


def test_a_device_that_stands_or_crawls_is_promised_the_horizon_and_no_more() -> None:
    model = coverage(3, 100.0)
    offset_m = np.array([[0.0, 0.0], [50.0, 0.0], [200.0, 0.0]])
    state = model.update(motion(offset_m, np.array([[0.0, 0.0], [1e-6, 0.0], [0.0, 0.0]])))
    assert state.predicted_s.tolist() == [CONTACT_HORIZON_S, CONTACT_HORIZON_S, 0.0]


def test_always_is_open_everywhere() -> None:
    scene = Scene((1000.0, 800.0), (500.0, 400.0), 5.9e9, 2, 0)
    state = AlwaysConfig().build(scene).update(motion(np.full((2, 2), 1e6), np.zeros((2, 2))))
    assert state.is_open.all()
    assert state.predicted_s.tolist() == [CONTACT_HORIZON_S] * 2


def test_a_hysteresis_that_swallows_the_disc_is_refused() -> None:
    with pytest.raises(ValueError, match="a hysteresis of 50 m leaves nothing of a coverage"):
        CoverageConfig(radius_m=50.0, hysteresis_m=50.0)
