"""Delays and losses are what was asked for, packet for packet where a seed decides."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from burst_statistics import (
    burst_lengths,
    burst_share_deviation,
    chi_square_bound,
    geometric_chi_square,
)
from conformance.traffic import Arrival, Catcher, Datagrams
from conformance.variants import (
    SEED,
    back_ends_that,
    back_ends_that_cannot,
    back_ends_with_seeded_loss,
    delaying_back_ends,
    deviations,
    make,
    need,
    take_precedence,
)
from sandboxed import in_sandbox, in_sandboxes

from fadelab_emulation.backends.choice import SKILLS, Need, Variant
from fadelab_emulation.backends.impairment.base import Direction, LaneLoss
from fadelab_emulation.backends.impairment.chain import first_state, loss_sequence
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.link_state import BoolArray, FloatArray, LinkTick, PacketLoss, plain_tick

pytestmark = [pytest.mark.conformance, pytest.mark.namespaces]

UP, DOWN = Direction
_DELAYS_S = {UP: (0.005, 0.020, 0.050), DOWN: (0.050, 0.005, 0.020)}
_JITTER_S, _JITTERED_DELAY_S = 0.002, 0.020
_JITTERED = 3
"""The device whose delays vary."""
_ROUNDS, _GAP_S = 300, 0.009
"""Gaps of more than four standard deviations, so that order costs no packet time."""
_CROWD = 1000
_SMALL_BYTES = 32
_FAST_BPS = 1e9
_PACKETS = 100_000


@dataclass(frozen=True)
class DelayFigures:
    """How long packets took over links without queues."""

    steady_s: dict[tuple[Direction, float], FloatArray]
    """By direction and programmed delay."""
    jittered_s: dict[Direction, FloatArray]
    crowd: dict[Direction, list[int]]
    """Numbers of packets that were sent together over a link with jitter, as they came."""


@cache
def delay_figures(variant: Variant) -> DelayFigures:
    need(variant)
    return in_sandbox(measure_delays, variant)


def measure_delays(variant: Variant) -> DelayFigures:
    take_precedence()
    devices = _JITTERED + 1
    plan = LinkPlan([QueueSizes.for_rates(_FAST_BPS, _FAST_BPS)] * devices, seed=SEED)
    backend = make(variant, plan)
    backend.apply(delaying_tick(devices))
    flows = {
        (device, way): Datagrams(backend, device, way, payload_bytes=_SMALL_BYTES)
        for device in range(devices)
        for way in Direction
    }
    with Catcher(list(flows.values())) as catcher:
        for _ in range(_ROUNDS):
            for flow in flows.values():
                flow.send()
            time.sleep(_GAP_S)
        time.sleep(0.2)
        for way in Direction:
            flows[_JITTERED, way].send(_CROWD)
        time.sleep(0.5)
    found = {key: catcher.arrivals[flow] for key, flow in flows.items()}
    return DelayFigures(
        steady_s={
            (way, delay_s): delays_s(found[device, way])
            for way in Direction
            for device, delay_s in enumerate(_DELAYS_S[way])
        },
        jittered_s={way: delays_s(found[_JITTERED, way][:_ROUNDS]) for way in Direction},
        crowd={way: [one.number for one in found[_JITTERED, way][_ROUNDS:]] for way in Direction},
    )


def delaying_tick(devices: int) -> LinkTick:
    rates_bps = np.full(devices, _FAST_BPS)
    jitter_s = np.zeros(devices)
    jitter_s[_JITTERED] = _JITTER_S
    return replace(
        plain_tick(rates_bps, rates_bps),
        delay_up_s=np.array([*_DELAYS_S[UP], _JITTERED_DELAY_S]),
        delay_down_s=np.array([*_DELAYS_S[DOWN], _JITTERED_DELAY_S]),
        jitter_up_s=jitter_s,
        jitter_down_s=jitter_s,
    )


def delays_s(arrivals: list[Arrival]) -> FloatArray:
    return np.array([arrival.arrived_s - arrival.sent_s for arrival in arrivals])


@delaying_back_ends
@pytest.mark.parametrize("delay_s", sorted(_DELAYS_S[UP]))
@pytest.mark.parametrize("direction", list(Direction), ids=["up", "down"])
def test_a_delay_is_right_within_a_hundredth_and_half_a_millisecond(
    variant: Variant,
    direction: Direction,
    delay_s: float,
    record_property: Callable[[str, Any], None],
) -> None:
    found_s = delay_figures(variant).steady_s[direction, delay_s]
    median_s = float(np.median(found_s))
    record_property("excess_ms", round(1e3 * (median_s - delay_s), 3))
    assert len(found_s) == _ROUNDS
    # The median: a sender that is interrupted between reading the clock and sending is none.
    assert abs(median_s - delay_s) < 0.01 * delay_s + 0.0005


@delaying_back_ends
@pytest.mark.parametrize("direction", list(Direction), ids=["up", "down"])
def test_jitter_has_its_standard_deviation(
    variant: Variant, direction: Direction, record_property: Callable[[str, Any], None]
) -> None:
    found_s = delay_figures(variant).jittered_s[direction]
    low_s, median_s, high_s = np.quantile(found_s, (0.1, 0.5, 0.9))
    # The middle 80 % of a normal distribution are 2.563 standard deviations wide. Of 300 packets
    # their width has a relative deviation of 5 %.
    spread_s = (high_s - low_s) / 2.563
    record_property("jitter_ms", round(1e3 * spread_s, 3))
    assert len(found_s) == _ROUNDS
    assert spread_s == pytest.approx(_JITTER_S, rel=0.23)
    chance_s = 4.5 * 1.253 * _JITTER_S / np.sqrt(_ROUNDS)
    assert abs(median_s - _JITTERED_DELAY_S) < 0.01 * _JITTERED_DELAY_S + 0.0005 + chance_s


@delaying_back_ends
@pytest.mark.parametrize("direction", list(Direction), ids=["up", "down"])
def test_jitter_changes_no_order(variant: Variant, direction: Direction) -> None:
    assert delay_figures(variant).crowd[direction] == list(range(_ROUNDS, _ROUNDS + _CROWD))


INDEPENDENT = LaneLoss(0.05, 0.05, 0.0, 1.0)
BURSTS = LaneLoss(in_good=0.0, in_bad=1.0, to_bad=0.01, to_good=0.1)


@cache
def fates(variant: Variant) -> dict[LaneLoss, BoolArray]:
    """Return which packets were lost by each of the losses that a back-end knows, up and down."""
    need(variant)
    losses = {INDEPENDENT: UP}
    if is_able(variant):
        losses[BURSTS] = DOWN
    bodies = [partial(lost_packets, variant, loss, way) for loss, way in losses.items()]
    return dict(zip(losses, in_sandboxes(bodies), strict=True))


def is_able(variant: Variant) -> bool:
    return Need.BURST_LOSS in SKILLS[variant].can


def lost_packets(variant: Variant, loss: LaneLoss, direction: Direction) -> BoolArray:
    plan = LinkPlan([QueueSizes.for_rates(_FAST_BPS, _FAST_BPS)], seed=SEED)
    backend = make(variant, plan)
    backend.apply(losing_tick(loss))
    return Datagrams(backend, 0, direction, payload_bytes=_SMALL_BYTES).fates(_PACKETS)


def losing_tick(loss: LaneLoss) -> LinkTick:
    """Return a tick in which both directions lose alike."""
    packets = PacketLoss(*(np.array([probability]) for probability in loss))
    rate_bps = np.array([_FAST_BPS])
    return plain_tick(rate_bps, rate_bps, loss_up=packets, loss_down=packets)


@back_ends_that(Need.LOSS)
def test_independent_losses_are_as_many_as_asked_for(
    variant: Variant, record_property: Callable[[str, Any], None]
) -> None:
    lost = fates(variant)[INDEPENDENT]
    probability = INDEPENDENT.in_good
    deviation = np.sqrt(probability * (1 - probability) / _PACKETS)
    record_property("share", float(lost.mean()))
    record_property("deviations", round(float((lost.mean() - probability) / deviation), 2))
    assert abs(lost.mean() - probability) < deviations(variant) * deviation
    statistic, bins = geometric_chi_square(burst_lengths(~lost), probability)
    assert statistic < chi_square_bound(bins - 1, deviations(variant))


@back_ends_that(Need.BURST_LOSS)
def test_losses_come_in_bursts_as_long_as_asked_for(
    variant: Variant, record_property: Callable[[str, Any], None]
) -> None:
    lost = fates(variant)[BURSTS]
    share = BURSTS.to_bad / (BURSTS.to_bad + BURSTS.to_good)
    deviation = burst_share_deviation(BURSTS.to_bad, BURSTS.to_good, _PACKETS)
    record_property("share", float(lost.mean()))
    record_property("deviations", round(float((lost.mean() - share) / deviation), 2))
    record_property("mean_burst", float(burst_lengths(lost).mean()))
    assert abs(lost.mean() - share) < deviations(variant) * deviation
    for lengths, leave in (
        (burst_lengths(lost), BURSTS.to_good),
        (burst_lengths(~lost), BURSTS.to_bad),
    ):
        statistic, bins = geometric_chi_square(lengths, leave)
        assert statistic < chi_square_bound(bins - 1, deviations(variant))


@back_ends_with_seeded_loss()
def test_a_seed_says_exactly_which_packets_are_lost(variant: Variant) -> None:
    for loss, direction in ((INDEPENDENT, UP), (BURSTS, DOWN)):
        expected = loss_sequence(first_state(SEED, 0, direction, 0), loss, _PACKETS)
        np.testing.assert_array_equal(fates(variant)[loss], expected)


def refusal(variant: Variant, tick: LinkTick) -> str:
    """Return what a back-end says to a tick; empty if it takes it."""
    backend = make(variant, LinkPlan([QueueSizes.for_rates(1e6, 1e6)]))
    try:
        backend.apply(tick)
    except ValueError as error:
        return str(error)
    return ""


@back_ends_that_cannot(Need.DELAY)
def test_a_delay_that_cannot_be_had_is_refused(variant: Variant) -> None:
    need(variant)
    rate_bps = np.array([1e6])
    tick = plain_tick(rate_bps, rate_bps, delay_s=0.01)
    assert "netem or relay" in in_sandbox(refusal, variant, tick)


@back_ends_that_cannot(Need.BURST_LOSS)
def test_bursts_that_cannot_be_had_are_refused(variant: Variant) -> None:
    need(variant)
    assert "Gilbert-Elliott" in in_sandbox(refusal, variant, losing_tick(BURSTS))
