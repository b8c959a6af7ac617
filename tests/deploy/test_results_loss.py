"""Lost packets against expected ones, and what bursts do to their number."""

import numpy as np
import pytest

from fadelab.results.loss import loss_fidelity, variance_factor
from fadelab.results.record import Event
from fadelab_emulation.link_state import PacketLoss


def chain(in_good: float, in_bad: float, to_bad: float, to_good: float) -> PacketLoss:
    return PacketLoss(*(np.array([value]) for value in (in_good, in_bad, to_bad, to_good)))


def account(arrived: int, lost: int, expected: float) -> Event:
    return {
        "up_arrived_packets": arrived,
        "up_lost_packets": lost,
        "up_expected_losses": expected,
    }


@pytest.mark.parametrize(
    ("loss", "factor"),
    [
        (PacketLoss.independent(np.array([0.1])), 1.0),
        (PacketLoss.independent(np.array([0.0])), 1.0),
        (chain(0.2, 0.2, 0.1, 0.3), 1.0),
        # All losses in the bad state alone: (1 + r) / (1 - r) with r = 1 - 0.01 - 0.09.
        (chain(0.0, 1.0, 0.01, 0.09), 19.0),
        # A chain that never moves stays in the good state.
        (chain(0.3, 1.0, 0.0, 0.0), 1.0),
    ],
)
def test_bursts_increase_the_variance_by_a_factor_that_is_known(
    loss: PacketLoss, factor: float
) -> None:
    assert variance_factor(loss) == pytest.approx([factor])


def test_the_factor_is_what_many_chains_show() -> None:
    chains, packets = 4000, 1500
    loss = chain(0.02, 0.5, 0.02, 0.2)
    rng = np.random.default_rng(5)
    bad = rng.random(chains) < 0.02 / 0.22
    lost = np.zeros(chains)
    for _ in range(packets):
        bad = np.where(bad, rng.random(chains) >= 0.2, rng.random(chains) < 0.02)
        lost += rng.random(chains) < np.where(bad, 0.5, 0.02)
    mean = float(loss.mean[0])
    assert lost.mean() == pytest.approx(mean * packets, rel=0.02)
    # The standard error of a variance of 4000 readings is 2.2 %.
    independent = packets * mean * (1 - mean)
    assert lost.var() / independent == pytest.approx(float(variance_factor(loss)[0]), rel=0.12)


def test_z_counts_standard_deviations_of_a_binomial() -> None:
    found = loss_fidelity(account(10_000, 130, 100.0), "up", 1.0)
    assert found is not None
    assert (found.arrived, found.lost, found.expected) == (10_000, 130, 100.0)
    assert found.z == pytest.approx(30 / (100 * 0.99) ** 0.5)


def test_bursts_make_the_same_count_less_remarkable() -> None:
    plain = loss_fidelity(account(10_000, 130, 100.0), "up", 1.0)
    bursty = loss_fidelity(account(10_000, 130, 100.0), "up", 9.0)
    assert plain is not None
    assert bursty is not None
    assert plain.z is not None
    assert bursty.z == pytest.approx(plain.z / 3)


def test_losses_where_none_were_expected_count_as_they_are() -> None:
    found = loss_fidelity(account(1_000, 25, 0.0), "up", 1.0)
    assert found is not None
    assert found.z == 25.0


@pytest.mark.parametrize("arrived", [0, 5_000])
def test_without_losses_programmed_or_seen_there_is_no_z(arrived: int) -> None:
    found = loss_fidelity(account(arrived, 0, 0.0), "up", 1.0)
    assert found is not None
    assert found.z is None


def test_an_account_without_these_counts_says_nothing_of_losses() -> None:
    assert loss_fidelity({"up_wire_bytes": 7}, "up", 1.0) is None
    assert loss_fidelity({}, "down", 1.0) is None
