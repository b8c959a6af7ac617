"""The accounts that show whether the kernel did what it was told."""

import numpy as np
import pytest

from fadelab_emulation.backends.fidelity import GUARD_S, LeakAccount, LossAccount, RateAccount

RATE_BPS = 8_000_000
"""A million bytes a second."""


class Link:
    """One link's account, fed by hand."""

    def __init__(self, rate_bps: int = RATE_BPS) -> None:
        self.account = RateAccount(1)
        self.account.set_rate(0, rate_bps, 0.0)

    def sample(self, at_s: float, sent: int, backlog: int = 1000) -> None:
        self.account.sample(np.array([0]), np.array([sent]), np.array([backlog]), at_s)

    def rate(self, at_s: float, rate_bps: int) -> None:
        self.account.set_rate(0, rate_bps, at_s)

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
    for shaper in (0, 1):
        account.set_rate(shaper, RATE_BPS, 0.0)
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


class Port:
    """One port's losses with two packet classes, fed by hand."""

    def __init__(self) -> None:
        self.account = LossAccount(lanes=2, ports=1)

    def losses(self, at_s: float, *probabilities: float) -> None:
        self.account.set_probabilities(np.array(probabilities)[:, None], at_s)

    def sample(
        self, at_s: float, arrived: int, lost: int, sent: tuple[int, int], is_open: bool = True
    ) -> None:
        port, arrivals = np.array([0]), np.array([[arrived], [lost]])
        state = np.array([is_open])
        self.account.sample(port, state, arrivals, np.array(sent)[:, None], at_s)

    @property
    def result(self) -> tuple[int, int, float]:
        account = self.account
        return int(account.arrived[0]), int(account.lost[0]), float(account.expected[0])


def test_expected_losses_follow_what_each_class_sent_and_the_mean_of_its_probability() -> None:
    port = Port()
    port.losses(0.0, 0.1, 0.5)
    port.sample(0.0, 50, 9, (60, 0))
    port.sample(1.0, 150, 30, (135, 25))
    assert port.result == (100, 21, pytest.approx(75 * 0.1 + 25 * 0.5))
    port.losses(1.25, 0.5, 0.5)
    port.sample(2.0, 250, 70, (235, 25))
    assert port.result == (200, 61, pytest.approx(20.0 + 100 * 0.4))


def test_what_befalls_packets_of_a_closed_link_is_no_loss() -> None:
    port = Port()
    port.losses(0.0, 0.1, 0.1)
    port.sample(0.0, 0, 0, (0, 0))
    port.account.interrupt(np.array([0]))
    port.sample(1.0, 100, 80, (100, 0), is_open=False)
    port.sample(2.0, 200, 180, (200, 0))
    assert port.result == (0, 0, 0.0)
    port.sample(3.0, 300, 190, (300, 0))
    assert port.result == (100, 10, pytest.approx(10.0))
