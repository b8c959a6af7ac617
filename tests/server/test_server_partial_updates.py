"""Averages by coordinate: what a partial update leaves out neither counts nor pulls towards zero."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fadelab_proto.codecs import Segment
from fadelab_proto.runs import Runs, complement, union
from fadelab_server.aggregation import AggregationRule, Contribution, FedAsync, FedAvg
from fadelab_server.aggregation.coverage import MissingSamples
from fadelab_server.config import ConstantStaleness, FedAsyncConfig, FedAvgConfig

F32 = NDArray[np.float32]
N, PACKET = 60, 7
PACKETS = -(-N // PACKET)


def delta(device: int) -> F32:
    return np.random.default_rng(device).standard_normal(N, dtype=np.float32)


def runs_of(packets: set[int]) -> Runs:
    return union([(PACKET * own, min(N, PACKET * (own + 1))) for own in packets])


def contribution(device: int, arrived: set[int], samples: int, base: F32) -> Contribution:
    whole = delta(device)
    covered = runs_of(arrived)
    return Contribution(
        device=device,
        base=base,
        segments=[Segment(int(first), whole[first:last]) for first, last in covered],
        base_version=0,
        staleness=0,
        samples=samples,
        missing=complement(covered, N),
    )


def average(rule: AggregationRule, updates: list[tuple[set[int], int]], newest: F32) -> F32:
    roster = frozenset(range(len(updates)))
    results = [
        rule.add(contribution(device, arrived, samples, newest), newest=newest, roster=roster)
        for device, (arrived, samples) in enumerate(updates)
    ]
    assert all(early is None for early in results[:-1])
    assert results[-1] is not None
    return results[-1]


def by_hand(updates: list[tuple[set[int], int]], newest: F32) -> NDArray[np.float64]:
    """Average one coordinate after the other."""
    result = newest.astype(np.float64)
    for at in range(N):
        spoken = [(d, n) for d, (packets, n) in enumerate(updates) if at // PACKET in packets]
        if spoken:
            result[at] += sum(n * float(delta(d)[at]) for d, n in spoken) / sum(
                n for _, n in spoken
            )
    return result


arrived = st.sets(st.integers(0, PACKETS - 1), min_size=0)
rounds = st.lists(st.tuples(arrived, st.integers(1, 1000)), min_size=1, max_size=6)
REWEIGH = FedAvgConfig(missing="reweigh")


@given(rounds)
def test_each_coordinate_is_averaged_over_the_devices_that_cover_it(
    updates: list[tuple[set[int], int]],
) -> None:
    newest = delta(99)
    result = average(FedAvg(REWEIGH, N), updates, newest)
    np.testing.assert_allclose(result, by_hand(updates, newest), rtol=1e-5, atol=1e-5)
    for at in range(N):
        if not any(at // PACKET in packets for packets, _ in updates):
            assert result[at] == newest[at], "nobody spoke of it, so it stays bit for bit"


@given(rounds)
def test_missing_entries_may_count_as_zero_instead(updates: list[tuple[set[int], int]]) -> None:
    newest = delta(99)
    result = average(FedAvg(FedAvgConfig(missing="zero"), N), updates, newest)
    total = np.zeros(N)
    for device, (packets, samples) in enumerate(updates):
        for first, last in runs_of(packets):
            total[first:last] += samples * delta(device)[first:last]
    exact = newest + total / sum(samples for _, samples in updates)
    np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5)


@given(rounds)
def test_a_round_that_was_saved_and_restored_ends_the_same(
    updates: list[tuple[set[int], int]],
) -> None:
    newest = delta(99)
    roster = frozenset(range(len(updates) + 1))
    rule = FedAvg(REWEIGH, N)
    for device, (packets, samples) in enumerate(updates):
        rule.add(contribution(device, packets, samples, newest), newest=newest, roster=roster)
    restored = FedAvg(REWEIGH, N)
    restored.restore(rule.pending())
    last = contribution(len(updates), {0, 3}, 11, newest)
    results = [own.add(last, newest=newest, roster=roster) for own in (rule, restored)]
    np.testing.assert_array_equal(*results)
    again = average(rule, [(set(range(PACKETS)), 3)], newest)
    np.testing.assert_allclose(again, newest + delta(0), rtol=1e-6, atol=1e-6)


def test_the_mean_over_random_losses_is_the_mean_without_losses() -> None:
    draw = np.random.default_rng(5)
    devices, trials, newest = 4, 1500, np.zeros(N, np.float32)
    whole = average(FedAvg(REWEIGH, N), [(set(range(PACKETS)), 10)] * devices, newest)
    total, squares, counted = np.zeros(N), np.zeros(N), np.zeros(N)
    zeroed = np.zeros(N)
    for _ in range(trials):
        kept = draw.random((devices, PACKETS)) < 0.6
        updates = [(set(np.flatnonzero(own).tolist()), 10) for own in kept]
        result = average(FedAvg(REWEIGH, N), updates, newest)
        spoken = np.repeat(kept.any(axis=0), PACKET)[:N]
        total += np.where(spoken, result, 0)
        squares += np.where(spoken, result.astype(np.float64) ** 2, 0)
        counted += spoken
        zeroed += average(FedAvg(FedAvgConfig(missing="zero"), N), updates, newest)
    mean = total / counted
    error = np.sqrt((squares / counted - mean**2) / counted)
    # The largest of 60 normal numbers, those of a packet much alike, is rarely beyond 4.
    assert (np.abs(mean - whole) < 4.5 * error + 1e-6).all()
    np.testing.assert_allclose(zeroed / trials, 0.6 * whole, atol=0.05)


@pytest.mark.parametrize(("missing", "left"), [("reweigh", 8.0), ("zero", 6.0)])
def test_fedasync_leaves_what_is_missing_at_the_newest_or_mixes_the_base(
    missing: Any, left: float
) -> None:
    config = FedAsyncConfig(alpha=0.5, staleness=ConstantStaleness(), missing=missing)
    newest, base = np.full(N, 8, np.float32), np.full(N, 4, np.float32)
    result = FedAsync(config).add(
        contribution(0, {1}, 1, base), newest=newest, roster=frozenset({0})
    )
    assert result is not None
    covered = slice(PACKET, 2 * PACKET)
    np.testing.assert_allclose(result[covered], 6 + 0.5 * delta(0)[covered], rtol=1e-6)
    np.testing.assert_array_equal(np.delete(result, np.r_[covered]), left)


@given(st.lists(st.tuples(arrived, st.integers(1, 1000)), max_size=8))
def test_missing_samples_are_a_step_function(updates: list[tuple[set[int], int]]) -> None:
    missing, exact = MissingSamples(), np.zeros(N, dtype=int)
    for packets, samples in updates:
        runs = complement(runs_of(packets), N)
        if len(runs):
            missing.add(runs, samples)
        for first, last in runs:
            exact[first:last] += samples
    found = np.zeros(N, dtype=int)
    steps = list(missing)
    for first, last, samples in steps:
        assert (found[first:last] == 0).all()
        found[first:last] = samples
    np.testing.assert_array_equal(found, exact)
    assert len(steps) <= PACKETS
