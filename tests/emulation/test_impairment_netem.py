"""sch_netem, led to through an IFB, delays and loses as it was told."""

import math
from typing import Any

import numpy as np
import pytest
from burst_statistics import (
    burst_lengths,
    burst_share_deviation,
    chi_square_bound,
    geometric_chi_square,
)
from impaired_link import NO_LOSS, Datagrams, ImpairedLink, independent
from numpy.typing import NDArray
from sandboxed import in_sandbox

from fadelab_emulation.backends.impairment import netem_messages
from fadelab_emulation.backends.impairment.base import Arrivals, Direction, LaneLoss
from fadelab_emulation.backends.impairment.cbpf import CbpfLoss
from fadelab_emulation.backends.impairment.chain import first_state, loss_sequence
from fadelab_emulation.backends.impairment.ebpf import EbpfLoss, ebpf_problem
from fadelab_emulation.backends.impairment.netem import NetemDelay, NetemLoss
from fadelab_emulation.backends.plan import ClassMark, LinkPlan, QueueSizes
from fadelab_emulation.netlink.message import NetlinkError, NetlinkSocket

_PLAN = LinkPlan([QueueSizes.for_rates(1e6, 1e6)], seed=7)
_PACKETS = 100_000
_DELAYS_S = (0.0, 0.005, 0.020, 0.050)
UP, DOWN = Direction


def netem_problem() -> str:
    with NetlinkSocket() as netlink:
        try:
            netlink.change(
                [netem_messages.create_ifb("delay1", 100), netem_messages.add_delay(100)]
            )
        except NetlinkError as error:
            return str(error)
    return ""


@pytest.fixture(scope="module")
def netem() -> None:
    """Skip what needs the kernel's netem where it has none."""
    if problem := in_sandbox(netem_problem):
        pytest.skip(problem)


def needs_netem(test: Any) -> Any:
    return pytest.mark.namespaces(pytest.mark.usefixtures("netem")(test))


def make_link() -> ImpairedLink:
    return ImpairedLink(NetemDelay(NetemLoss(_PLAN)))


Delayed = dict[tuple[Direction, float], tuple[int, float]]


def delayed_by_each() -> Delayed:
    """Return how many of 100 packets arrived, and their median delay, by direction and delay."""
    link, found = make_link(), {}
    for direction in Direction:
        for delay_s in _DELAYS_S:
            link.set(direction=direction, delay_s=delay_s)
            numbers, delays_s = Datagrams(link, direction).delays_s(100, gap_s=0.003)
            found[direction, delay_s] = len(numbers), float(np.median(delays_s))
    return found


@pytest.fixture(scope="module")
def delayed(netem: None) -> Delayed:
    """All delays measured in one sandbox: to make one takes longer than to measure."""
    return in_sandbox(delayed_by_each)


@needs_netem
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("delay_s", _DELAYS_S)
def test_a_delay_is_right_within_a_hundredth_and_half_a_millisecond(
    delayed: Delayed, direction: Direction, delay_s: float
) -> None:
    arrived, median_s = delayed[direction, delay_s]
    assert arrived == 100
    assert abs(median_s - delay_s) < 0.01 * delay_s + 0.0005


def jittered() -> tuple[list[int], NDArray[np.float64]]:
    link = make_link()
    link.set(delay_s=0.020, jitter_s=0.003)
    return Datagrams(link).delays_s(400, gap_s=0.012)


@needs_netem
def test_jitter_is_normal_with_its_standard_deviation() -> None:
    """Quantiles, because a busy machine makes some packets much later."""
    _, found_s = in_sandbox(jittered)
    assert len(found_s) == 400
    low_s, median_s, high_s = np.quantile(found_s, [0.1587, 0.5, 0.8413])
    assert abs(median_s - 0.020) < 0.0002 + 0.0005 + 4 * 1.25 * 0.003 / math.sqrt(400)
    # The standard error of half the distance between these quantiles is 0.96 / sqrt(n).
    assert (high_s - low_s) / 2 == pytest.approx(0.003, rel=4 * 0.96 / math.sqrt(400))
    # netem's own, uniform jitter would not go beyond one standard deviation.
    assert found_s.min() < 0.020 - 2 * 0.003


def jittered_crowd() -> tuple[list[int], NDArray[np.float64]]:
    link = make_link()
    link.set(delay_s=0.020, jitter_s=0.010)
    return Datagrams(link).delays_s(1000, gap_s=0.0)


@needs_netem
def test_packets_keep_their_order_however_close_they_are() -> None:
    numbers, found_s = in_sandbox(jittered_crowd)
    assert numbers == list(range(1000))
    assert np.ptp(found_s) > 0.005


def shortened() -> list[int]:
    """Return packets in order of arrival, the second hundred sent after the delay fell."""
    link = make_link()
    link.set(delay_s=0.1)
    datagrams = Datagrams(link)
    datagrams.send(range(100))
    link.set(delay_s=0.001)
    datagrams.send(range(100, 200))
    return datagrams.receive(0.5)


@needs_netem
def test_a_shorter_delay_lets_no_packet_overtake() -> None:
    assert in_sandbox(shortened) == list(range(200))


def lost_by_netem(loss: LaneLoss, delay_s: float) -> tuple[NDArray[np.bool_], Arrivals]:
    link = make_link()
    link.set(loss, delay_s=delay_s)
    return Datagrams(link).fates(_PACKETS), link.read()


@needs_netem
@pytest.mark.parametrize("probability", [0.01, 0.2])
def test_netem_loses_independently(probability: float) -> None:
    lost, counted = in_sandbox(lost_by_netem, independent(probability), 0.0)
    deviation = math.sqrt(_PACKETS * probability * (1 - probability))
    assert abs(lost.sum() - _PACKETS * probability) < 4 * deviation
    assert counted == Arrivals(_PACKETS, lost.sum())
    bursts = len(burst_lengths(lost))
    assert lost.sum() / bursts == pytest.approx(1 / (1 - probability), rel=4 / math.sqrt(bursts))


@needs_netem
def test_netem_loses_in_geometric_bursts() -> None:
    to_bad, to_good = 0.01, 0.1
    lost, _ = in_sandbox(lost_by_netem, LaneLoss(0.0, 1.0, to_bad, to_good), 0.0)
    deviation = burst_share_deviation(to_bad, to_good, _PACKETS)
    assert abs(lost.mean() - to_bad / (to_bad + to_good)) < 4 * deviation
    for lengths, leave in ((burst_lengths(lost), to_good), (burst_lengths(~lost), to_bad)):
        statistic, bins = geometric_chi_square(lengths, leave)
        assert statistic < chi_square_bound(bins - 1, deviations=4)


def lost_by_ebpf_then_delayed(loss: LaneLoss) -> tuple[NDArray[np.bool_], float]:
    link = ImpairedLink(NetemDelay(EbpfLoss(_PLAN)))
    link.set(loss, delay_s=0.010)
    datagrams = Datagrams(link)
    lost = datagrams.fates(20_000)
    link.set(NO_LOSS, delay_s=0.010)
    return lost, float(np.median(datagrams.delays_s(50, gap_s=0.003)[1]))


@needs_netem
def test_seeded_losses_and_delays_go_together() -> None:
    if problem := in_sandbox(ebpf_problem):
        pytest.skip(problem)
    loss = LaneLoss(0.0, 1.0, 0.01, 0.1)
    lost, median_s = in_sandbox(lost_by_ebpf_then_delayed, loss)
    np.testing.assert_array_equal(lost, loss_sequence(first_state(7, 0, UP, 0), loss, 20_000))
    assert abs(median_s - 0.010) < 0.0006


def lost_by_class_then_delayed() -> list[tuple[int, float]]:
    """Return how many of 500 packets of each class are lost, and the median delay."""
    plan = LinkPlan(_PLAN.queues, classes=(ClassMark(dscp=46),))
    link = ImpairedLink(NetemDelay(CbpfLoss(plan.classes)))
    found = []
    for dscp in (0, 46):
        datagrams = Datagrams(link, dscp=dscp)
        link.set(NO_LOSS, independent(0.5), delay_s=0.005)
        lost = int(datagrams.fates(500).sum())
        link.set(NO_LOSS, independent(0.01), delay_s=0.005)
        found.append((lost, float(np.median(datagrams.delays_s(50, gap_s=0.003)[1]))))
    return found


@needs_netem
def test_classes_lose_by_classic_bpf_and_are_delayed_alike() -> None:
    (plain_lost, plain_s), (marked_lost, marked_s) = in_sandbox(lost_by_class_then_delayed)
    assert plain_lost == 0
    assert abs(marked_lost - 250) < 4 * math.sqrt(125)
    assert abs(plain_s - 0.005) < 0.00055
    assert abs(marked_s - 0.005) < 0.00055


def far_away() -> Arrivals:
    link = make_link()
    link.set(delay_s=1.0)
    datagrams = Datagrams(link)
    datagrams.send(range(3000))
    datagrams.receive(1.2)
    return link.read()


@needs_netem
def test_a_long_wire_holds_more_packets_than_netem_does_by_itself() -> None:
    assert in_sandbox(far_away) == Arrivals(3000, 0)


def test_netems_loss_knows_no_classes() -> None:
    plan = LinkPlan(_PLAN.queues, classes=(ClassMark(dscp=46),))
    with pytest.raises(ValueError, match="all classes alike"):
        NetemLoss(plan)


def test_the_normal_table_is_one() -> None:
    table = np.frombuffer(netem_messages.normal_table(), dtype=np.int16) / 8192
    assert table.mean() == pytest.approx(0, abs=1e-6)
    assert table.std() == pytest.approx(1, rel=1e-4)
    assert np.mean(np.abs(table) < 1) == pytest.approx(0.6827, abs=0.002)
    assert np.mean(np.abs(table) < 2) == pytest.approx(0.9545, abs=0.002)
