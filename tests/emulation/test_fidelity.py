"""The accounts that show whether the kernel did what it was told."""

import numpy as np
import pytest

from fadelab_emulation.backends.fidelity import GUARD_S, LeakAccount, RateAccount

RATE_BPS = 8_000_000
"""A million bytes a second."""


class Link:
    """One link's account, fed by hand."""

    def __init__(self, rate_bps: int = RATE_BPS) -> None:
        self.account = RateAccount(1)
        self.account.set_rates(np.array([rate_bps]), 0.0)

    def sample(self, at_s: float, sent: int, backlog: int = 1000) -> None:
        self.account.sample(np.array([0]), np.array([sent]), np.array([backlog]), at_s)

    def rate(self, at_s: float, rate_bps: int) -> None:
        self.account.set_rates(np.array([rate_bps]), at_s)

    @property
    def result(self) -> tuple[float, int, int]:
        account = self.account
        return (
            float(account.programmed_bytes[0]),
            int(account.achieved_bytes[0]),
            int(account.stretches[0]),
        )


def test_an_interval_counts_only_if_the_queue_was_occupied_at_both_ends() -> None:
    link = Link()
    link.sample(0.1, 5_000)
    assert link.result == (0, 0, 0)
    link.sample(0.2, 104_000)
    assert link.result == (pytest.approx(100_000), 99_000, 1)
    link.sample(0.3, 150_000, backlog=0)
    link.sample(0.4, 160_000)
    assert link.result == (pytest.approx(100_000), 99_000, 1)


def test_neighbouring_intervals_are_one_stretch_and_a_gap_begins_another() -> None:
    link = Link()
    for step in range(4):
        link.sample(0.1 * step, 100_000 * step)
    assert link.result == (pytest.approx(300_000), 300_000, 1)
    link.sample(0.4, 350_000, backlog=0)
    for step in range(5, 8):
        link.sample(0.1 * step, 350_000 + 100_000 * (step - 5))
    assert link.result == (pytest.approx(500_000), 500_000, 2)


def test_a_change_of_rate_between_samples_is_integrated() -> None:
    link = Link()
    link.sample(0.0, 0)
    link.rate(0.25, 2 * RATE_BPS)
    link.rate(0.75, RATE_BPS)
    link.sample(1.0, 1_480_000)
    assert link.result == (pytest.approx(1_500_000), 1_480_000, 1)


def test_an_interval_in_which_the_link_was_closed_does_not_count() -> None:
    link = Link()
    link.sample(0.0, 0)
    link.rate(0.4, 0)
    link.rate(0.6, RATE_BPS)
    link.sample(1.0, 800_000)
    assert link.result == (0, 0, 0)
    link.sample(1.1, 900_000)
    assert link.result == (pytest.approx(100_000), 100_000, 1)


def test_links_are_sampled_apart_from_each_other() -> None:
    account = RateAccount(2)
    account.set_rates(np.array([RATE_BPS, RATE_BPS]), 0.0)
    for at_s, device in ((0.0, 0), (0.1, 1), (0.5, 0), (0.7, 1)):
        sent = np.array([round(1e6 * at_s)])
        account.sample(np.array([device]), sent, np.array([1]), at_s)
    assert account.programmed_bytes == pytest.approx([500_000, 600_000])
    assert account.achieved_bytes.tolist() == [500_000, 600_000]
    assert account.stretches.tolist() == [1, 1]


def test_leaks_are_counted_from_the_end_of_the_guard_time_to_the_opening() -> None:
    account = LeakAccount(2)
    account.closed(1, 10.0)
    assert account.next_due_s() == pytest.approx(10.0 + GUARD_S)
    assert account.due(10.0 + GUARD_S / 2) == []
    assert account.due(10.0 + 2 * GUARD_S) == [1]
    account.begin(1, 100, 50)
    assert account.next_due_s() is None
    account.update(1, 103, 50)
    account.update(1, 104, 52)
    account.opened(1)
    assert not account.counting(1)
    assert (account.leaked_up.tolist(), account.leaked_down.tolist()) == ([0, 4], [0, 2])


def test_a_link_that_reopens_within_the_guard_time_is_never_counted() -> None:
    account = LeakAccount(1)
    account.closed(0, 0.0)
    account.opened(0)
    assert account.next_due_s() is None
    assert account.due(1.0) == []
