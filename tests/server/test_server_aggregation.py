import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fadelab_proto.codecs import Segment
from fadelab_server.aggregation import AggregationRule, Contribution, FedAsync, FedAvg, build_rule
from fadelab_server.aggregation.base import F32
from fadelab_server.aggregation.staleness import staleness_weight
from fadelab_server.config import (
    ConstantStaleness,
    FedAsyncConfig,
    FedAvgConfig,
    HingeStaleness,
    PolynomialStaleness,
    StalenessConfig,
)

N = 4
ZERO: F32 = np.zeros(N, dtype=np.float32)
deltas = hnp.arrays(np.float32, N, elements=st.floats(-1000, 1000, width=32))
rounds = st.lists(st.tuples(deltas, st.integers(1, 10_000)), min_size=1, max_size=6)


def contribution(
    device: int,
    delta: F32,
    *,
    samples: int = 1,
    base: F32 = ZERO,
    staleness: int = 0,
) -> Contribution:
    return Contribution(
        device=device,
        base=base,
        segments=(Segment(0, delta),),
        base_version=0,
        staleness=staleness,
        samples=samples,
    )


def ones(value: float = 1.0) -> F32:
    return np.full(N, value, dtype=np.float32)


def devices(count: int) -> frozenset[int]:
    return frozenset(range(count))


def add_all(rule: AggregationRule, newest: F32, updates: list[tuple[F32, int]]) -> F32:
    *early, last = [
        rule.add(
            contribution(device, delta, samples=samples, base=newest),
            newest=newest,
            roster=devices(len(updates)),
        )
        for device, (delta, samples) in enumerate(updates)
    ]
    assert early == [None] * len(early)
    assert last is not None
    return last


@given(rounds, deltas)
def test_fedavg_is_the_sample_weighted_mean(updates: list[tuple[F32, int]], newest: F32) -> None:
    result = add_all(FedAvg(FedAvgConfig(), N), newest, updates)
    stack = np.array([delta for delta, _ in updates], dtype=np.float64)
    weights = np.array([samples for _, samples in updates], dtype=np.float64)
    exact = newest.astype(np.float64) + (weights[:, None] * stack).sum(axis=0) / weights.sum()
    assert result.dtype == np.float32
    # Sums are float32: each of the products and additions may be off by half a unit of its result.
    terms = (weights[:, None] * np.abs(stack)).sum(axis=0) / weights.sum()
    rounding = (len(updates) + 2) * np.finfo(np.float32).eps * terms
    last_place = np.spacing(np.abs(exact).astype(np.float32))
    assert (np.abs(result - exact) <= rounding + last_place + 1e-10).all()


def test_fedavg_begins_the_next_round_from_nothing() -> None:
    rule = FedAvg(FedAvgConfig(), N)
    first = add_all(rule, ZERO, [(ones(2), 3), (ones(6), 1)])
    np.testing.assert_array_equal(first, ones(3))
    np.testing.assert_array_equal(add_all(rule, first, [(ones(1), 5)]), ones(4))


def test_a_quorum_ends_the_round_without_the_others() -> None:
    rule = FedAvg(FedAvgConfig(quorum=2), N)
    assert rule.add(contribution(0, ones()), newest=ZERO, roster=devices(5)) is None
    assert rule.add(contribution(4, ones(3)), newest=ZERO, roster=devices(5)) is not None


def test_a_quorum_larger_than_the_roster_does_not_wait_for_ever() -> None:
    rule = FedAvg(FedAvgConfig(quorum=3), N)
    assert rule.add(contribution(0, ones()), newest=ZERO, roster=devices(1)) is not None


def test_late_and_second_updates_are_refused() -> None:
    rule = FedAvg(FedAvgConfig(), N)
    rule.add(contribution(1, ones()), newest=ZERO, roster=devices(3))
    assert "round of version 6 is over" in (rule.refuse(device=0, base_version=6, newest=7) or "")
    assert "device 1 has already" in (rule.refuse(device=1, base_version=7, newest=7) or "")
    assert rule.refuse(device=0, base_version=7, newest=7) is None


def test_a_shrinking_roster_ends_the_round() -> None:
    rule = FedAvg(FedAvgConfig(), N)
    assert rule.roster_changed(newest=ZERO, roster=frozenset()) is None, "nothing to average"
    rule.add(contribution(0, ones(2)), newest=ZERO, roster=devices(2))
    assert rule.roster_changed(newest=ZERO, roster=devices(2)) is None
    result = rule.roster_changed(newest=ZERO, roster=frozenset({0}))
    assert result is not None
    np.testing.assert_array_equal(result, ones(2))


def test_a_contributor_that_left_does_not_stand_in_for_one_that_still_trains() -> None:
    rule = FedAvg(FedAvgConfig(), N)
    rule.add(contribution(0, ones()), newest=ZERO, roster=devices(3))
    assert rule.roster_changed(newest=ZERO, roster=frozenset({1, 2})) is None
    still = frozenset({1, 2})
    assert rule.add(contribution(1, ones()), newest=ZERO, roster=still) is None
    assert rule.add(contribution(2, ones()), newest=ZERO, roster=still) is not None


@given(rounds)
def test_a_restored_round_ends_like_the_original(updates: list[tuple[F32, int]]) -> None:
    rule = FedAvg(FedAvgConfig(), N)
    roster = devices(len(updates) + 1)
    for device, (delta, samples) in enumerate(updates):
        rule.add(contribution(device, delta, samples=samples), newest=ZERO, roster=roster)
    restored = FedAvg(FedAvgConfig(), N)
    restored.restore(rule.pending())
    assert restored.refuse(device=0, base_version=0, newest=0) is not None
    last = contribution(len(updates), ones(7), samples=11)
    np.testing.assert_array_equal(
        restored.add(last, newest=ZERO, roster=roster), rule.add(last, newest=ZERO, roster=roster)
    )


def test_pending_is_a_copy() -> None:
    rule = FedAvg(FedAvgConfig(), N)
    rule.add(contribution(0, ones()), newest=ZERO, roster=devices(3))
    kept = rule.pending()
    rule.add(contribution(1, ones()), newest=ZERO, roster=devices(3))
    np.testing.assert_array_equal(kept["sum"], np.ones(N))


@pytest.mark.parametrize(
    ("config", "staleness", "weight"),
    [
        (ConstantStaleness(), 0, 1.0),
        (ConstantStaleness(), 50, 1.0),
        (PolynomialStaleness(exponent=0.5), 0, 1.0),
        (PolynomialStaleness(exponent=0.5), 3, 0.5),
        (PolynomialStaleness(exponent=0.5), 8, 1 / 3),
        (PolynomialStaleness(exponent=2), 4, 0.04),
        (HingeStaleness(slope=10, threshold=4), 0, 1.0),
        (HingeStaleness(slope=10, threshold=4), 4, 1.0),
        (HingeStaleness(slope=10, threshold=4), 5, 1 / 11),
        (HingeStaleness(slope=10, threshold=4), 7, 1 / 31),
    ],
)
def test_staleness_weights(config: StalenessConfig, staleness: int, weight: float) -> None:
    assert staleness_weight(config)(staleness) == pytest.approx(weight, rel=1e-12)


def fedasync(alpha: float, staleness: StalenessConfig | None = None, **other: int) -> FedAsync:
    return FedAsync(
        FedAsyncConfig(alpha=alpha, staleness=staleness or ConstantStaleness(), **other)
    )


def mixed(rule: FedAsync, newest: F32, delta: F32, base: F32, staleness: int = 0) -> F32:
    result = rule.add(
        contribution(0, delta, base=base, staleness=staleness), newest=newest, roster=devices(1)
    )
    assert result is not None
    return result


def test_fedasync_mixes_the_local_model_that_base_and_delta_make() -> None:
    # local = 4 + 2 = 6; 0.25 * 6 + 0.75 * 10 = 9. Adding the delta to the newest would give 10.5.
    np.testing.assert_array_equal(mixed(fedasync(0.25), ones(10), ones(2), ones(4)), ones(9))


def test_fedasync_weighs_stale_models_less() -> None:
    rule = fedasync(0.5, PolynomialStaleness(exponent=0.5))
    # a = 0.5 * (3 + 1) ** -0.5 = 0.25; 0.25 * 8 = 2.
    np.testing.assert_array_equal(mixed(rule, ZERO, ones(8), ZERO, staleness=3), ones(2))


def test_alpha_1_takes_the_local_model_as_it_is() -> None:
    np.testing.assert_array_equal(mixed(fedasync(1.0), ones(1e8), ones(3), ZERO), ones(3))


def test_the_mixing_weight_does_not_decay_with_arrivals() -> None:
    rule = fedasync(0.5, PolynomialStaleness(exponent=0.5))
    for _ in range(1000):
        mixed(rule, ZERO, ones(8), ZERO, staleness=8)
    np.testing.assert_array_equal(mixed(rule, ZERO, ones(8), ZERO, staleness=3), ones(2))
    np.testing.assert_array_equal(mixed(rule, ZERO, ones(8), ZERO), ones(4))


def test_fedasync_modifies_neither_the_newest_nor_the_base() -> None:
    newest, base = ones(10), ones(4)
    mixed(fedasync(0.5), newest, ones(2), base)
    np.testing.assert_array_equal(newest, ones(10))
    np.testing.assert_array_equal(base, ones(4))


def test_max_staleness_is_the_last_that_is_taken() -> None:
    rule = fedasync(0.5, max_staleness=2)
    assert rule.refuse(device=0, base_version=5, newest=7) is None
    assert "3 versions stale; at most 2" in (rule.refuse(device=0, base_version=4, newest=7) or "")
    assert fedasync(0.5).refuse(device=0, base_version=0, newest=10_000) is None


def test_each_kind_of_configuration_builds_its_rule() -> None:
    assert build_rule(FedAvgConfig(), N).synchronous
    assert not build_rule(FedAsyncConfig(), N).synchronous
