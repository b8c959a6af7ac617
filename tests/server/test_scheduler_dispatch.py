"""Who uploads and who receives: the staleness cap against all orders, choices against all of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.server.schedules import ordered_schedule, terms

from fadelab_server.scheduler.constraints import violations
from fadelab_server.scheduler.dispatch import (
    Holder,
    Waiting,
    admissible,
    keeps_cap,
    next_receivers,
    next_uploader,
)
from fadelab_server.scheduler.event_log import Received, TaskLog, Uploaded
from fadelab_server.scheduler.tensors import completions, staleness


@settings(max_examples=150, deadline=None)
@given(
    ages=st.lists(st.integers(0, 5), max_size=5), newest=st.integers(5, 9), cap=st.integers(0, 5)
)
def test_the_cap_can_be_kept_if_and_only_if_some_order_keeps_it(
    ages: list[int], newest: int, cap: int
) -> None:
    versions = [newest - age for age in ages]
    orders = itertools.permutations(versions)
    possible = any(
        all(newest + turn - version <= cap for turn, version in enumerate(order))
        for order in orders
    )
    assert keeps_cap(versions, newest=newest, cap=cap) == possible


def test_at_most_one_more_than_the_cap_hold_versions() -> None:
    assert admissible([], newest=4, cap=3) == 4
    assert admissible([4, 3, 2], newest=4, cap=3) == 1
    assert admissible([4, 4, 4, 4], newest=4, cap=3) == 0


@settings(max_examples=100, deadline=None)
@given(data=st.data(), newest=st.integers(3, 6), cap=st.integers(0, 3))
def test_the_uploader_is_the_cheapest_that_leaves_an_order(
    data: st.DataObject, newest: int, cap: int
) -> None:
    holders = [
        Holder(
            device,
            newest - data.draw(st.integers(0, 3)),
            data.draw(st.sampled_from([0.0, 1.0, 9.0])),
            data.draw(st.floats(0, 10)),
        )
        for device in range(data.draw(st.integers(0, 5)))
    ]
    allowed = [
        holder
        for holder in holders
        if holder.ready_in_s <= 1.0
        and newest - holder.version <= cap
        and any(
            all(newest + 1 + turn - other.version <= cap for turn, other in enumerate(order))
            for order in itertools.permutations([h for h in holders if h is not holder])
        )
    ]
    found = next_uploader(holders, newest=newest, cap=cap, lookahead_s=1.0)
    assert (found is None) == (not allowed)
    if found is not None:
        assert found in allowed
        assert found.cost == min(holder.cost for holder in allowed)


@pytest.mark.parametrize("seed", range(30))
def test_cheapest_first_against_all_orders(seed: int) -> None:
    """All are ready: no order within the cap has a cheaper first upload, or then a cheaper second."""
    rng = np.random.default_rng(seed)
    newest, cap, versions = 5, 4, [0]
    while not keeps_cap(versions, newest=newest, cap=cap):
        versions = [newest - int(age) for age in rng.integers(0, 4, 5)]
    costs = rng.random(5)
    holders = [Holder(n, version, 0.0, float(costs[n])) for n, version in enumerate(versions)]
    feasible = [
        order
        for order in itertools.permutations(holders)
        if all(newest + turn - holder.version <= cap for turn, holder in enumerate(order))
    ]
    left, chosen = list(holders), []
    for turn in range(5):
        holder = next_uploader(left, newest=newest + turn, cap=cap)
        assert holder is not None
        left.remove(holder)
        chosen.append(holder)
    assert [h.cost for h in chosen] == min([h.cost for h in order] for order in feasible)


def test_receivers_are_rested_cheap_and_few_enough() -> None:
    waiting = [
        Waiting(0, 5.0, 0.3),
        Waiting(1, 9.0, 0.0),
        Waiting(2, 1.0, 0.2),
        Waiting(3, 1.0, 0.1),
    ]
    holders = [Holder(4, 7, 0.0, 0.0)]
    assert next_receivers(waiting, holders, newest=7, cap=5, now_s=5.0) == (3, 2, 0)
    assert next_receivers(waiting, holders, newest=7, cap=2, now_s=5.0) == (3, 2)
    assert next_receivers(waiting, holders, newest=7, cap=0, now_s=5.0) == ()
    # The holder of version 7 is past what a cap of 1 allows at version 9: nobody may join it.
    assert next_receivers(waiting, holders, newest=9, cap=1, now_s=5.0) == ()


@pytest.mark.parametrize("cap", [0, 1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_runs_that_are_dispatched_this_way_keep_every_constraint(seed: int, cap: int) -> None:
    """Random training times: no run stands still, none is staler than its cap."""
    rng = np.random.default_rng(seed)
    events, holding, now_s = [], {}, 0.0
    idle = dict.fromkeys(range(6), 0.0)
    newest = 0
    while newest < 25:
        waiting = [Waiting(d, until_s, float(rng.random())) for d, until_s in idle.items()]
        holders = [
            Holder(d, version, max(0.0, ready_s - now_s), float(rng.random()))
            for d, (version, ready_s) in holding.items()
        ]
        for d in next_receivers(waiting, holders, newest=newest, cap=cap, now_s=now_s):
            events.append(Received(d, newest, now_s))
            holding[d] = (newest, now_s + float(rng.exponential(3.0)))
            del idle[d]
        holders = [
            Holder(d, version, max(0.0, ready_s - now_s), float(rng.random()))
            for d, (version, ready_s) in holding.items()
        ]
        chosen = next_uploader(holders, newest=newest, cap=cap)
        if chosen is None:
            later = [t for _, t in holding.values() if t > now_s]
            later += [t for t in idle.values() if t > now_s]
            now_s = min(later)
            continue
        events.append(Uploaded(chosen.device, chosen.version, newest, 0.4, now_s))
        del holding[chosen.device]
        idle[chosen.device] = now_s + float(rng.exponential(1.0))
        newest += 1
    log = TaskLog(6, tuple(events))
    assert staleness(completions(*log.tensors())) <= cap
    task, devices = terms(rng, devices=6, aggregations=25)
    task = type(task)(
        **{name: getattr(task, name) for name in task.__slots__} | {"staleness_cap": cap}
    )
    schedule = ordered_schedule(rng, log, task, devices)
    assert violations([schedule], [task], devices) == []
