"""Contact by SNR: threshold, hysteresis, handover between two stations, prediction."""

from typing import Any

import numpy as np
import pytest
from scenes import make_scene
from sights import drive, opened, power_law_snr_db, predicted, sight, sites

from fadelab_emulation.contact.base import CONTACT_HORIZON_S, ContactState
from fadelab_emulation.contact.snr_threshold import SnrThresholdConfig
from fadelab_emulation.scene import Scene


def config(**changes: Any) -> SnrThresholdConfig:
    return SnrThresholdConfig.model_validate(
        {"threshold_db": 10.0, "hysteresis_db": 3.0, "handover_margin_db": 3.0, **changes}
    )


def two_stations(devices: int = 1) -> Scene:
    """Return sites at x = 0 and x = 1000 m, as high as the devices."""
    return make_scene(
        devices,
        area_m=(1000.0, 10.0),
        sites_m=[(0.0, 0.0), (1000.0, 0.0)],
        site_height_m=1.5,
    )


def shown(settings: SnrThresholdConfig, snr_db: list[list[float]]) -> list[ContactState]:
    """Show the model one row of SNRs (one per site) every 0.1 s."""
    scene = two_stations()
    model = settings.build(scene)
    place_m = np.array([[500.0, 0.0]])
    return [
        model.update(sight(scene, place_m, t_s=0.1 * tick, snr_db=np.array([row])))
        for tick, row in enumerate(snr_db)
    ]


def test_opens_at_the_threshold_and_closes_below_it_by_the_hysteresis() -> None:
    heard_db = [6.0, 9.9, 10.0, 8.0, 7.0, 6.9, 9.9, 10.1]
    states = shown(config(), [[snr_db, -20.0] for snr_db in heard_db])
    wanted = [False, False, True, True, True, False, False, True]
    assert opened(states)[:, 0].tolist() == wanted


def test_a_handover_waits_for_margin_and_time_to_trigger() -> None:
    """Better by 3 dB or less for ever: none. Better by more for 0.3 s: at the fourth tick."""
    settings = config(time_to_trigger_s=0.3)
    states = shown(settings, [[20.0, 10.0]] + [[20.0, 23.0]] * 10 + [[20.0, 23.1]] * 6)
    assert sites(states)[:, 0].tolist() == [0] * 14 + [1] * 3
    assert opened(states).all()


def test_rounded_instants_do_not_lengthen_the_time_to_trigger() -> None:
    """1.0 - 0.7 is less than 0.3 in binary numbers."""
    settings = config(time_to_trigger_s=0.3)
    for worse in range(1, 40):
        states = shown(settings, [[20.0, 10.0]] * worse + [[20.0, 25.0]] * 5)
        assert int(sites(states).sum()) == 2


def test_a_handover_starts_all_times_to_trigger_again() -> None:
    """Of three stations the last is 4 dB better than the second, which is so than the first."""
    scene = make_scene(sites_m=[(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)])
    model = config(time_to_trigger_s=0.3).build(scene)
    rows = [[20.0, 10.0, 10.0]] + [[20.0, 24.0, 10.0]] * 2 + [[20.0, 24.0, 28.0]] * 8
    states = [
        model.update(sight(scene, np.zeros((1, 2)), t_s=0.1 * tick, snr_db=np.array([row])))
        for tick, row in enumerate(rows)
    ]
    assert sites(states)[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 3


def test_the_time_to_trigger_starts_again_when_the_margin_is_lost() -> None:
    better, worse = [20.0, 25.0], [20.0, 21.0]
    rows = [[20.0, 10.0], *([better] * 3 + [worse]) * 5]
    states = shown(config(time_to_trigger_s=0.3), rows)
    assert not sites(states).any()


def test_an_interruption_closes_the_link_from_the_handover_on() -> None:
    """0.25 s are three ticks of 0.1 s; the site changes at their beginning."""
    states = shown(config(interruption_s=0.25), [[20.0, 10.0]] * 2 + [[20.0, 30.0]] * 6)
    assert sites(states)[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert opened(states)[:, 0].tolist() == [True, True, False, False, False, True, True, True]
    assert np.array_equal(predicted(states) > 0, opened(states))


def test_no_handover_begins_during_an_interruption_but_for_a_lost_site() -> None:
    rows = [[20.0, 10.0], [20.0, 30.0], [40.0, 30.0], [40.0, 30.0], [40.0, 30.0]]
    states = shown(config(interruption_s=0.2), rows)
    assert sites(states)[:, 0].tolist() == [0, 1, 1, 0, 0]
    assert opened(states)[:, 0].tolist() == [True, False, False, False, False]
    lost = shown(config(interruption_s=0.2), [*rows[:2], [40.0, 6.0], *rows[2:]])
    assert sites(lost)[:, 0].tolist() == [0, 1, 0, 0, 0, 0]
    assert opened(lost)[:, 0].tolist() == [True, False, False, False, True, True]


def test_a_new_contact_does_not_wait_for_an_old_interruption() -> None:
    rows = [[20.0, 10.0], [20.0, 30.0], [0.0, 0.0], [0.0, 30.0]]
    states = shown(config(interruption_s=5.0), rows)
    assert opened(states)[:, 0].tolist() == [True, False, False, True]


def test_a_lost_site_is_left_at_once_for_one_that_still_holds_the_link() -> None:
    """The other is within the hysteresis and better by less than the margin."""
    settings = config(time_to_trigger_s=5.0, interruption_s=0.1)
    states = shown(settings, [[12.0, 8.0], [6.9, 8.0], [6.9, 8.0], [6.9, 6.9], [6.9, 9.9]])
    assert sites(states)[:4, 0].tolist() == [0, 1, 1, 0]
    assert opened(states)[:, 0].tolist() == [True, False, True, False, False]


def test_a_drive_from_one_station_to_the_other_by_hand() -> None:
    """90 dB at 1 m, exponent 3; 3 dB margin is 25.9 % more distance: x = 1000 * r / (1 + r).

    Hence at 557.3 m, 55.73 s at 10 m/s; 0.5 s time to trigger and 0.2 s interruption from there.
    """
    scene = two_stations()
    settings = config(threshold_db=0.0, time_to_trigger_s=0.5, interruption_s=0.2)
    states = drive(
        scene, settings.build(scene), np.array([[1.0, 0.0]]), np.array([[10.0, 0.0]]),
        tick_s=0.1, ticks=990, snr=(90.0, 3.0),
    )  # fmt: skip
    ratio = 10 ** (3 / 30)
    better_at_s = (1000 * ratio / (1 + ratio) - 1) / 10
    handover = int(np.ceil(better_at_s / 0.1)) + 5
    assert np.array_equal(sites(states)[:, 0], np.arange(990) >= handover)
    assert np.flatnonzero(~opened(states)[:, 0]).tolist() == [handover, handover + 1]


def test_the_prediction_is_exact_for_a_straight_way_under_its_own_law() -> None:
    """Antennas 30 m apart in height, chords at several offsets and headings, one site."""
    scene = make_scene(12, area_m=(1000.0, 1000.0), sites_m=[(500.0, 500.0)], site_height_m=31.5)
    settings = config(threshold_db=12.0, hysteresis_db=2.0, forecast_exponent=3.5)
    reach_m = np.sqrt((10 ** ((85.0 - 10.0) / 35)) ** 2 - 30.0**2)
    across_m, angle = np.meshgrid([-0.8, 0.0, 0.3, 0.75], [0.0, 1.0, 4.0])
    heading = np.column_stack([np.cos(angle.ravel()), np.sin(angle.ravel())])
    normal = np.column_stack([-heading[:, 1], heading[:, 0]])
    start_m = 500.0 - 1.2 * reach_m * heading + reach_m * across_m.ravel()[:, None] * normal
    states = drive(
        scene, settings.build(scene), start_m, 10.0 * heading,
        tick_s=0.1, ticks=400, snr=(85.0, 3.5),
    )  # fmt: skip
    exit_s = (1.2 + np.sqrt(1 - across_m.ravel() ** 2)) * reach_m / 10
    true_s = exit_s - 0.1 * np.arange(400)[:, None]
    is_open = opened(states)
    assert is_open.any(axis=0).all()
    assert not is_open[-1].any()
    assert np.allclose(predicted(states)[is_open], true_s[is_open], atol=1e-9)


def test_a_prediction_reaches_over_to_the_next_station() -> None:
    """Radii of 631 m overlap between sites 1000 m apart: in contact up to 1631 m."""
    scene = two_stations()
    state = drive(
        scene, config(threshold_db=9.0).build(scene), np.array([[1.0, 0.0]]),
        np.array([[10.0, 0.0]]), tick_s=0.1, ticks=1, snr=(90.0, 3.0),
    )[0]  # fmt: skip
    assert state.predicted_s[0] == pytest.approx((1000 + 10 ** (84 / 30) - 1) / 10)


def test_a_standing_device_in_contact_is_promised_the_horizon() -> None:
    scene = two_stations(2)
    place_m = np.array([[10.0, 0.0], [10.0, 0.0]])
    snr_db = power_law_snr_db(scene, place_m, 90.0, 3.0) - np.array([[0.0], [90.0]])
    state = config().build(scene).update(sight(scene, place_m, snr_db=snr_db))
    assert state.predicted_s.tolist() == [CONTACT_HORIZON_S, 0.0]
