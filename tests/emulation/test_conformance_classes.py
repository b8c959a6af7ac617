"""Packet classes have rates and losses of their own, whatever the others do."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from conformance.traffic import (
    FRAME_BITS,
    FULL_PAYLOAD_BYTES,
    Arrival,
    Catcher,
    Datagrams,
    Flood,
    now_s,
    per_second,
)
from conformance.variants import (
    SEED,
    back_ends_with_classes,
    back_ends_with_seeded_loss,
    deviations,
    make,
    need,
    take_precedence,
)
from sandboxed import in_sandbox

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.choice import Variant
from fadelab_emulation.backends.impairment.base import Direction, LaneLoss
from fadelab_emulation.backends.impairment.chain import first_state, loss_sequence
from fadelab_emulation.backends.plan import ClassMark, LinkPlan, QueueSizes
from fadelab_emulation.link_state import BoolArray, Lane, LinkTick, PacketLoss, plain_tick

pytestmark = [pytest.mark.conformance, pytest.mark.namespaces]

UP, DOWN = Direction
_CLASSES = (ClassMark(dscp=46), ClassMark(port=5001))
_MARKS: tuple[dict[str, int], ...] = ({}, {"dscp": 46}, {"port": 5001})
"""How the packets of each lane are made, the default class's first."""
_RATES_BPS = {UP: (1.5e6, 0.7e6, 0.4e6), DOWN: (0.7e6, 3e6, 1e6)}
_LOSSES = {UP: (0.02, 0.1, 0.3), DOWN: (0.3, 0.05, 0.01)}
_OFFERED = 1.1
_SETTLE_S, _SECONDS = 0.5, 5
_PACKETS = 5000
_SMALL_BYTES = 32
lanes = pytest.mark.parametrize("lane", range(3), ids=["default", "dscp", "port"])
directions = pytest.mark.parametrize("direction", list(Direction), ids=["up", "down"])


class Way(NamedTuple):
    """One class in one direction."""

    direction: Direction
    lane: int


def tick_of(
    rates_bps: Mapping[Direction, tuple[float, ...]], losses: Mapping[Direction, tuple[float, ...]]
) -> LinkTick:
    plain = plain_tick(np.zeros(1), np.zeros(1))
    up, down = (
        tuple(
            Lane(np.array([rate_bps]), PacketLoss.independent(np.array([loss])))
            for rate_bps, loss in zip(rates_bps[way], losses[way], strict=True)
        )
        for way in Direction
    )
    return replace(plain, up=up, down=down)


def flows_of(backend: LinkBackend, payload_bytes: int) -> dict[Way, Datagrams]:
    return {
        Way(direction, lane): Datagrams(
            backend, 0, direction, payload_bytes=payload_bytes, **_MARKS[lane]
        )
        for direction in Direction
        for lane in range(len(_MARKS))
    }


@cache
def shares_carried(variant: Variant) -> dict[Way, float]:
    need(variant)
    return in_sandbox(measure_shares, variant)


def measure_shares(variant: Variant) -> dict[Way, float]:
    """Offer all classes more than they have, at once, and return what each got over its rate."""
    take_precedence()
    queues = [QueueSizes.for_rates(sum(_RATES_BPS[UP]), sum(_RATES_BPS[DOWN]))]
    backend = make(variant, LinkPlan(queues, classes=_CLASSES))
    backend.apply(tick_of(_RATES_BPS, dict.fromkeys(Direction, (0.0,) * len(_MARKS))))
    flows = flows_of(backend, FULL_PAYLOAD_BYTES)
    offered = {flow: _OFFERED * _RATES_BPS[way.direction][way.lane] for way, flow in flows.items()}
    with Catcher(list(flows.values())) as catcher, Flood(offered):
        time.sleep(_SETTLE_S)
        start_s = now_s()
        time.sleep(_SECONDS)
    return {
        way: median_bps(catcher.arrivals[flow], start_s) / _RATES_BPS[way.direction][way.lane]
        for way, flow in flows.items()
    }


def median_bps(arrivals: list[Arrival], start_s: float) -> float:
    """Return the median of single seconds' rates, which one with a pause does not move."""
    at_s = [arrival.arrived_s for arrival in arrivals]
    return float(np.median(per_second(at_s, range(len(at_s)), start_s, _SECONDS))) * FRAME_BITS


@back_ends_with_classes()
@directions
@lanes
def test_each_class_gets_its_own_rate(
    variant: Variant,
    direction: Direction,
    lane: int,
    record_property: Callable[[str, Any], None],
) -> None:
    share = shares_carried(variant)[Way(direction, lane)]
    record_property("share", share)
    assert share == pytest.approx(1.0, abs=0.01)


@cache
def fates(variant: Variant) -> dict[Way, BoolArray]:
    need(variant)
    return in_sandbox(measure_fates, variant)


def measure_fates(variant: Variant) -> dict[Way, BoolArray]:
    """Return which packets of each class were lost, one class after the other."""
    fast_bps = 1e9
    plan = LinkPlan([QueueSizes.for_rates(fast_bps, fast_bps)], classes=_CLASSES, seed=SEED)
    backend = make(variant, plan)
    backend.apply(tick_of(dict.fromkeys(Direction, (fast_bps,) * len(_MARKS)), _LOSSES))
    flows = flows_of(backend, _SMALL_BYTES)
    return {way: flow.fates(_PACKETS) for way, flow in flows.items()}


@back_ends_with_classes()
@directions
@lanes
def test_each_class_has_its_own_losses(
    variant: Variant,
    direction: Direction,
    lane: int,
    record_property: Callable[[str, Any], None],
) -> None:
    lost, probability = fates(variant)[Way(direction, lane)], _LOSSES[direction][lane]
    deviation = np.sqrt(probability * (1 - probability) / _PACKETS)
    record_property("deviations", round(float((lost.mean() - probability) / deviation), 2))
    assert abs(lost.mean() - probability) < deviations(variant) * deviation


@back_ends_with_seeded_loss()
@directions
@lanes
def test_a_seed_says_for_each_class_which_packets_are_lost(
    variant: Variant, direction: Direction, lane: int
) -> None:
    probability = _LOSSES[direction][lane]
    loss = LaneLoss(probability, probability, 0.0, 1.0)
    expected = loss_sequence(first_state(SEED, 0, direction, lane), loss, _PACKETS)
    np.testing.assert_array_equal(fates(variant)[Way(direction, lane)], expected)
