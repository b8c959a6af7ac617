"""Outages: closed on time, for whom they are meant, announced or not, refused in one sentence."""

from typing import Any

import numpy as np
import pytest
from scenes import make_scene
from sights import drive, opened, sight

from fadelab_emulation.contact.always import AlwaysConfig
from fadelab_emulation.contact.base import CONTACT_HORIZON_S, ContactState
from fadelab_emulation.contact.coverage import CoverageConfig
from fadelab_emulation.contact.outages import OutageConfig, Outages, check_outages


def outage(*windows_s: tuple[float, float], **changes: Any) -> OutageConfig:
    return OutageConfig.model_validate({"windows_s": windows_s, **changes})


def always(
    outages: list[OutageConfig], ticks: int, devices: int = 3, tick_s: float = 0.1
) -> list[ContactState]:
    """Return what becomes of links that would be open for ever."""
    scene = make_scene(devices)
    model, cut = AlwaysConfig().build(scene), Outages(outages, devices)
    seen = [sight(scene, np.zeros((devices, 2)), t_s=tick_s * tick) for tick in range(ticks)]
    return [cut.apply(one.t_s, model.update(one)) for one in seen]


def test_links_are_closed_from_the_first_tick_in_an_outage_to_the_last() -> None:
    is_open = opened(always([outage((0.6, 0.7), (1.25, 1.5), (0.7, 0.9))], 20))
    closed = np.array([6, 7, 8, 13, 14])
    assert np.array_equal(np.flatnonzero(~is_open[:, 0]), closed)
    assert np.array_equal(is_open, np.repeat(is_open[:, :1], 3, axis=1))


def test_rounded_instants_do_not_move_an_outage() -> None:
    """3 * 0.7 is less than 2.1 in binary numbers, as are others of its multiples."""
    closed = ~opened(always([outage((2.1, 4.2), (7.7, 8.4))], 20, tick_s=0.7))
    assert np.flatnonzero(closed[:, 0]).tolist() == [3, 4, 5, 11]


def test_an_outage_from_the_start_is_one_from_the_first_tick() -> None:
    assert opened(always([outage((0.0, 0.2))], 4))[:, 1].tolist() == [False, False, True, True]


def test_an_outage_of_some_links_leaves_the_others_alone() -> None:
    entries = [outage((0.2, 0.4), devices=[1]), outage((0.3, 0.5), devices=[2, 0])]
    closed = ~opened(always(entries, 8))
    assert [np.flatnonzero(column).tolist() for column in closed.T] == [[3, 4], [2, 3], [3, 4]]


def test_predictions_end_at_announced_outages_only() -> None:
    entries = [
        outage((1.0, 1.5), announced=True),
        outage((0.5, 0.6), (3.0, 4.0), devices=[1]),
        outage((2.0, 2.5), devices=[0], announced=True),
    ]
    states = always(entries, 30)
    known_s = np.array(
        [np.full(3, np.inf) if s.announced_s is None else s.announced_s for s in states]
    )
    assert known_s[0] == pytest.approx([1.0] * 3)
    assert known_s[9] == pytest.approx([0.1] * 3)
    assert known_s[12, 0] == pytest.approx(0.8)
    assert np.isinf(known_s[12, 1:]).all()
    assert np.isinf(known_s[20:]).all()
    predicted_s = np.array([state.predicted_s for state in states])
    assert np.array_equal(predicted_s, np.where(opened(states), CONTACT_HORIZON_S, 0.0))


def test_without_announcements_nobody_knows_of_any() -> None:
    assert all(state.announced_s is None for state in always([outage((0.2, 0.4))], 5))
    assert all(state.announced_s is None for state in always([], 5))


def test_the_contact_model_goes_on_underneath() -> None:
    """In the disc from 0 to 10 s; the outage at the rim hides the end of the contact."""
    scene = make_scene(area_m=(300.0, 10.0), sites_m=[(0.0, 0.0)])
    model = CoverageConfig(radius_m=100.05, hysteresis_m=20.0).build(scene)
    states = drive(
        scene, model, np.array([[0.0, 0.0]]), np.array([[10.0, 0.0]]), tick_s=0.1, ticks=130
    )
    cut = Outages([outage((2.0, 9.0), (9.5, 12.0))], 1)
    is_open = opened([cut.apply(0.1 * tick, state) for tick, state in enumerate(states)])[:, 0]
    # From 9 s on the device is outside the opening radius, yet within the hysteresis.
    assert np.flatnonzero(is_open).tolist() == [*range(20), *range(90, 95)]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"windows_s": [[5, 4]]}, r"must end after its start, but \[5, 4\] does not"),
        ({"windows_s": [[5, 5]]}, r"must end after its start, but \[5, 5\] does not"),
        ({"windows_s": [[-1, 4]]}, "greater than or equal to 0"),
        ({"windows_s": []}, "at least 1 item"),
        ({"windows_s": [[1, 2, 3]]}, "at most 2 items"),
        ({"windows_s": [[1, float("inf")]]}, "finite"),
        ({"windows_s": [[1, 2]], "devices": [-1]}, "greater than or equal to 0"),
        ({"windows_s": [[1, 2]], "devices": []}, "at least 1 item"),
    ],
)
def test_an_impossible_outage_is_refused_in_one_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OutageConfig.model_validate(given)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([outage((1, 3), (2, 4))], r"\[1, 3\] and \[2, 4\] overlap$"),
        ([outage((1, 3), (2, 4)), outage((8, 9), devices=[0])], r"\[2, 4\] overlap$"),
        ([outage((5, 9)), outage((1, 6))], r"\[1, 6\] and \[5, 9\] overlap$"),
        (
            [outage((5, 9)), outage((1, 6), devices=[7, 2])],
            r"\[1, 6\] and \[5, 9\] overlap for device 2",
        ),
        ([outage((1, 3), devices=[4]), outage((1, 3), devices=[4])], "overlap for device 4"),
        ([outage((1, 1.05))], r"\[1, 1.05\] is shorter than the tick of 0.1 s"),
    ],
)
def test_outages_that_do_not_go_together_are_refused(
    entries: list[OutageConfig], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_outages(entries, 0.1)


def test_outages_may_touch_and_may_overlap_for_different_devices() -> None:
    check_outages([outage((1, 2), (2, 3), (0.3, 0.4))], 0.1)
    check_outages([outage((1, 3), devices=[0]), outage((2, 4), devices=[1])], 0.1)


def test_an_outage_of_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="device 3, but there are only 3 devices, numbered from 0"):
        Outages([outage((1, 2), devices=[0, 3])], 3)
