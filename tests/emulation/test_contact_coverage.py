"""Coverage: hysteresis, length of passes, predicted remaining contact, several sites."""

import numpy as np
import pytest
from scenes import make_scene
from sights import drive, opened, predicted, sight, sites

from fadelab_emulation.contact.always import AlwaysConfig
from fadelab_emulation.contact.base import CONTACT_HORIZON_S
from fadelab_emulation.contact.course import remaining_contact_s
from fadelab_emulation.contact.coverage import Coverage, CoverageConfig
from fadelab_emulation.scene import Scene

CENTRE_M = np.array([500.0, 400.0])


def one_site(devices: int = 1) -> Scene:
    return make_scene(devices, area_m=(1000.0, 800.0), sites_m=[(500.0, 400.0)])


def coverage(scene: Scene, radius_m: float, hysteresis_m: float = 0.0) -> Coverage:
    return CoverageConfig(radius_m=radius_m, hysteresis_m=hysteresis_m).build(scene)


@pytest.mark.parametrize(("radius_m", "speed_mps"), [(200.0, 10.0), (120.0, 30.0)])
def test_mean_contact_of_straight_passes(radius_m: float, speed_mps: float) -> None:
    """Uniform offsets from -R to R: pi R / 2v, within 2 %."""
    passes = 1000
    scene = one_site(passes)
    across_m = radius_m * (2 * (np.arange(passes) + 0.5) / passes - 1)
    start_m = CENTRE_M + np.column_stack([np.full(passes, -1.1 * radius_m), across_m])
    velocity_mps = np.tile([speed_mps, 0.0], (passes, 1))
    ticks = int(2.2 * radius_m / speed_mps / 0.1)
    model = coverage(scene, radius_m)
    states = drive(scene, model, start_m, velocity_mps, tick_s=0.1, ticks=ticks)
    mean_s = opened(states).sum(axis=0).mean() * 0.1
    assert mean_s == pytest.approx(np.pi * radius_m / (2 * speed_mps), rel=0.02)


def test_prediction_of_a_straight_walk_is_the_true_remaining_contact() -> None:
    """Chords at six offsets and four headings: predicted end = exit computed from the chord."""
    radius_m, speed_mps = 150.0, 12.0
    across_m, angle = np.meshgrid([-140.0, -60.0, 0.0, 5.0, 100.0, 149.0], [0.0, 0.7, 2.0, 4.5])
    heading = np.column_stack([np.cos(angle.ravel()), np.sin(angle.ravel())])
    normal = np.column_stack([-heading[:, 1], heading[:, 0]])
    start_m = CENTRE_M - 200.0 * heading + across_m.ravel()[:, None] * normal
    half_chord_m = np.sqrt(radius_m**2 - across_m.ravel() ** 2)
    exit_s = (200.0 + half_chord_m) / speed_mps
    scene = one_site(len(start_m))
    states = drive(
        scene, coverage(scene, radius_m), start_m, speed_mps * heading, tick_s=0.1, ticks=400
    )
    is_open, predicted_s = opened(states), predicted(states)
    true_s = exit_s - np.arange(400)[:, None] * 0.1
    assert is_open.any(axis=0).all()
    assert np.allclose(predicted_s[is_open], true_s[is_open], atol=1e-9)
    assert not predicted_s[~is_open].any()


def test_the_prediction_does_not_see_a_turn_ahead() -> None:
    scene = one_site()
    model = coverage(scene, 100.0)
    ahead = model.update(sight(scene, CENTRE_M[None], np.array([[10.0, 0.0]])))
    there = CENTRE_M + np.array([[60.0, 0.0]])
    turned = model.update(sight(scene, there, np.array([[-10.0, 0.0]]), t_s=6.0))
    assert ahead.predicted_s[0] == pytest.approx(10.0)
    assert turned.predicted_s[0] == pytest.approx(16.0)


def test_hysteresis_opens_further_inside_than_it_closes() -> None:
    scene = one_site()
    model = coverage(scene, 100.0, hysteresis_m=10.0)
    distances_m = [105, 95, 91, 90, 95, 100, 100.1, 99, 91, 89]
    states = [
        model.update(sight(scene, CENTRE_M + np.array([[d, 0.0]]), t_s=0.1 * tick))
        for tick, d in enumerate(distances_m)
    ]
    wanted = [False, False, False, True, True, True, False, False, False, True]
    assert opened(states)[:, 0].tolist() == wanted


def test_a_device_that_stands_or_crawls_is_promised_the_horizon_and_no_more() -> None:
    scene = one_site(3)
    position_m = CENTRE_M + np.array([[0.0, 0.0], [50.0, 0.0], [200.0, 0.0]])
    velocity_mps = np.array([[0.0, 0.0], [1e-6, 0.0], [0.0, 0.0]])
    state = coverage(scene, 100.0).update(sight(scene, position_m, velocity_mps))
    assert state.predicted_s.tolist() == [CONTACT_HORIZON_S, CONTACT_HORIZON_S, 0.0]


def line(spacing_m: float, count: int, devices: int = 1) -> Scene:
    """Return sites on the x axis, the first at the origin."""
    return make_scene(
        devices, area_m=(2000.0, 100.0), sites_m=[(n * spacing_m, 0.0) for n in range(count)]
    )


def test_the_nearest_site_serves_and_overlapping_discs_are_one_contact() -> None:
    """Discs of 100 m at 0, 150 and 400 m: one contact from 0 to 250 m, another up to 500 m."""
    scene = make_scene(area_m=(2000.0, 100.0), sites_m=[(0.0, 0.0), (150.0, 0.0), (400.0, 0.0)])
    states = drive(
        scene,
        coverage(scene, 100.0),
        np.array([[0.5, 0.0]]),
        np.array([[10.0, 0.0]]),
        tick_s=0.1,
        ticks=520,
    )
    x_m = 0.5 + np.arange(520)
    within = (x_m <= 250) | ((x_m >= 300) & (x_m <= 500))
    assert np.array_equal(opened(states)[:, 0], within)
    assert np.array_equal(sites(states)[:, 0], np.digitize(x_m, [75.0, 275.0]))
    ends_m = np.where(x_m <= 250, 250.0, 500.0)
    assert predicted(states)[within, 0] == pytest.approx(((ends_m - x_m) / 10)[within])


def test_coming_into_the_next_disc_needs_no_hysteresis_while_in_contact() -> None:
    """Discs of 100 m that overlap by 5 m, opening at 90 m: the contact goes on all the same."""
    scene = line(195.0, 2)
    start_m, velocity_mps = np.array([[0.5, 0.0]]), np.array([[10.0, 0.0]])
    states = drive(
        scene, coverage(scene, 100.0, 10.0), start_m, velocity_mps, tick_s=0.1, ticks=290
    )
    assert opened(states).all()
    rim_m = np.array([[101.5, 0.0]])
    back = drive(scene, coverage(scene, 100.0, 10.0), rim_m, velocity_mps, tick_s=0.1, ticks=20)
    assert opened(back)[:, 0].tolist() == [False] * 4 + [True] * 16


def test_a_handover_by_distance_waits_for_its_margin() -> None:
    scene = line(150.0, 2)
    config = CoverageConfig(radius_m=100.0, handover_margin_m=20.0)
    start_m, velocity_mps = np.array([[50.5, 0.0]]), np.array([[10.0, 0.0]])
    states = drive(scene, config.build(scene), start_m, velocity_mps, tick_s=0.1, ticks=50)
    x_m = 50.5 + np.arange(50)
    assert np.array_equal(sites(states)[:, 0], x_m > 85)
    assert opened(states).all()


def test_the_union_of_discs_on_the_way_by_hand() -> None:
    """A row per course through discs at 0, 150 and 305 m of 100, 60 and 100 m."""
    here_m = np.array([[0.0, 0.0], [0.0, 0.0], [145.0, 0.0], [250.0, 0.0], [0.0, 99.0], [700, 0]])
    centres_m = np.array([[0.0, 0.0], [150.0, 0.0], [305.0, 0.0]])
    velocity_mps = np.array([[10.0, 0], [-10.0, 0], [10.0, 0], [-10.0, 0], [0, 5.0], [-10.0, 0]])
    radius_m = np.tile([100.0, 60.0, 100.0], (6, 1))
    offset_m = here_m[:, None, :] - centres_m
    remaining_s = remaining_contact_s(offset_m, velocity_mps, radius_m)
    assert remaining_s == pytest.approx([40.5, 10.0, 26.0, 35.0, 0.2, 0.0])


def test_an_absent_device_is_not_connected_and_comes_back_through_the_hysteresis() -> None:
    scene = one_site(2)
    model = coverage(scene, 100.0, hysteresis_m=10.0)
    here_m = CENTRE_M + np.array([[80.0, 0.0], [80.0, 0.0]])
    rim_m = CENTRE_M + np.array([[95.0, 0.0], [95.0, 0.0]])
    both, first = np.array([True, True]), np.array([True, False])
    states = [
        model.update(sight(scene, here_m, present=both)),
        model.update(sight(scene, here_m, t_s=0.1, present=first)),
        model.update(sight(scene, rim_m, t_s=0.2, present=both)),
    ]
    assert opened(states).tolist() == [[True, True], [True, False], [True, False]]


def test_always_is_open_everywhere() -> None:
    scene = one_site(2)
    state = AlwaysConfig().build(scene).update(sight(scene, np.full((2, 2), 1e6)))
    assert state.is_open.all()
    assert state.predicted_s.tolist() == [CONTACT_HORIZON_S] * 2


def test_a_hysteresis_that_swallows_the_disc_is_refused() -> None:
    with pytest.raises(ValueError, match="a hysteresis of 50 m leaves nothing of a coverage"):
        CoverageConfig(radius_m=50.0, hysteresis_m=50.0)
