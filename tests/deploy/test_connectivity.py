"""The confusion matrix of connectivity, from readings made by hand."""

import numpy as np

from fadelab.results.connectivity import connectivity
from fadelab.results.schema import Connectivity
from fadelab_emulation.achieved import ROW, Achieved


def readings(through: list[int], backlog: list[int]) -> Achieved:
    rows = np.zeros(len(through), dtype=ROW)
    rows["up_through_packets"], rows["up_backlog_bytes"] = through, backlog
    ticks = np.arange(len(through))
    return Achieved(ticks, ticks * 0.1, rows)


def matrix(achieved: Achieved, is_open: list[bool], rate_bps: float = 1e7) -> Connectivity:
    return connectivity(
        achieved,
        is_open=np.array(is_open),
        rate_bps=np.full(len(is_open), rate_bps, dtype=np.float32),
        tick_s=0.1,
        direction="up",
    )


def test_a_link_that_obeys_has_nothing_off_the_diagonal() -> None:
    found = matrix(
        readings([0, 5, 9, 9, 9, 9, 12], [0, 0, 50, 50, 50, 50, 0]),
        [True, True, True, False, False, False, True],
    )
    # Open 0-1 and 1-2 passed; 2-3 and 5-6 change state and prove nothing; 3-4 and 4-5 silent.
    assert found == Connectivity(open_passed=2, open_stuck=0, closed_silent=2, closed_passed=0)


def test_packets_through_a_closed_window_and_a_stuck_open_one_are_found() -> None:
    leaky = matrix(readings([0, 0, 1, 2, 3], [0] * 5), [False] * 5)
    assert leaky.closed_passed == 3  # the first interval may still see what was on its way
    stuck = matrix(readings([7, 7, 7], [900, 900, 900]), [True] * 3)
    assert stuck.open_stuck == 2


def test_an_idle_open_link_proves_nothing() -> None:
    assert matrix(readings([3, 3, 3], [0, 0, 0]), [True] * 3) == Connectivity(
        open_passed=0, open_stuck=0, closed_silent=0, closed_passed=0
    )


def test_a_slow_link_is_given_time_for_its_packet() -> None:
    waiting = readings([0, 0, 0], [1514, 1514, 1514])
    assert matrix(waiting, [True] * 3, rate_bps=64e3).open_stuck == 0


def test_links_read_in_turns_are_judged_over_the_whole_gap() -> None:
    rows = np.zeros(2, dtype=ROW)
    rows["up_through_packets"] = [0, 8]
    gap = Achieved(np.array([0, 6]), np.array([0.0, 0.6]), rows)
    state = [True, True, True, False, True, True, True]
    assert matrix(gap, state).open_passed == 0
    assert matrix(gap, [True] * 7).open_passed == 1


def test_one_reading_is_no_interval() -> None:
    assert sum(matrix(readings([1], [0]), [True]).model_dump().values()) == 0
