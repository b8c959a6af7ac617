"""AFL and FedBuff: what their rules compute, and that a server that died computes it again."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.server.test_server_aggregation import ZERO, N, contribution, devices, ones

from fadelab_server.aggregation import Afl, FedBuff, build_rule
from fadelab_server.aggregation.base import F32
from fadelab_server.config import (
    AflConfig,
    ConstantStaleness,
    FedBuffConfig,
    PolynomialStaleness,
)

deltas = hnp.arrays(np.float32, N, elements=st.floats(-1000, 1000, width=32))


def added(rule: Afl, newest: F32, delta: F32, *, staleness: int = 0, roster: int = 4) -> F32:
    result = rule.add(
        contribution(0, delta, base=ZERO, staleness=staleness),
        newest=newest,
        roster=devices(roster),
    )
    assert result is not None
    return result


def test_afl_adds_a_devices_share_to_the_newest_model() -> None:
    # Not to the model that training began from: 10 + 8 / 4.
    np.testing.assert_array_equal(added(Afl(AflConfig()), ones(10), ones(8)), ones(12))


def test_afl_divides_by_the_number_that_it_is_given() -> None:
    rule = Afl(AflConfig(devices=2, server_rate=0.5))
    np.testing.assert_array_equal(added(rule, ZERO, ones(8)), ones(2))
    assert added(Afl(AflConfig()), ZERO, ones(8), roster=0)[0] == 8


def test_afl_weighs_stale_updates_less_if_it_is_told_to() -> None:
    rule = Afl(AflConfig(devices=1, staleness=PolynomialStaleness(exponent=0.5)))
    np.testing.assert_array_equal(added(rule, ZERO, ones(8), staleness=3), ones(4))
    assert added(Afl(AflConfig(devices=1)), ZERO, ones(8), staleness=3)[0] == 8


def test_afl_does_not_change_the_newest() -> None:
    newest = ones(10)
    added(Afl(AflConfig()), newest, ones(8))
    np.testing.assert_array_equal(newest, ones(10))


@pytest.mark.parametrize("rule", [Afl(AflConfig(max_staleness=2)), FedBuff(FedBuffConfig(), N)])
def test_only_the_limit_refuses(rule: Afl | FedBuff) -> None:
    refusal = rule.refuse(device=0, base_version=4, newest=7)
    assert (refusal is None) == isinstance(rule, FedBuff)
    assert rule.refuse(device=0, base_version=5, newest=7) is None
    assert rule.roster_changed(newest=ZERO, roster=devices(1)) is None
    assert not rule.synchronous


@given(st.lists(st.tuples(deltas, st.integers(0, 50)), min_size=2, max_size=6), deltas)
def test_fedbuff_is_the_weighted_mean_of_the_buffer(
    updates: list[tuple[F32, int]], newest: F32
) -> None:
    rule = FedBuff(FedBuffConfig(buffer=len(updates), server_rate=0.5), N)
    results = [
        rule.add(contribution(3, delta, staleness=age), newest=newest, roster=devices(9))
        for delta, age in updates
    ]
    assert results[:-1] == [None] * (len(updates) - 1)
    result = results[-1]
    assert result is not None
    weights = np.array([(age + 1) ** -0.5 for _, age in updates])
    stack = np.array([delta for delta, _ in updates], dtype=np.float64)
    exact = newest + 0.5 * (weights[:, None] * stack).sum(axis=0) / len(updates)
    np.testing.assert_allclose(result, exact, rtol=1e-5, atol=2e-3)


def test_fedbuff_begins_the_next_buffer_from_nothing() -> None:
    rule = FedBuff(FedBuffConfig(buffer=2, staleness=ConstantStaleness()), N)
    for expected in (ones(3), ones(3)):
        assert rule.add(contribution(0, ones(2)), newest=ZERO, roster=devices(1)) is None
        result = rule.add(contribution(0, ones(4)), newest=ZERO, roster=devices(1))
        np.testing.assert_array_equal(result, expected)


def test_a_restored_buffer_goes_on() -> None:
    rule = build_rule(FedBuffConfig(buffer=2), N)
    rule.add(contribution(0, ones(2), staleness=1), newest=ZERO, roster=devices(3))
    kept = rule.pending()
    restored = build_rule(FedBuffConfig(buffer=2), N)
    restored.restore(kept)
    last: Any = {"newest": ones(5), "roster": devices(3)}
    np.testing.assert_array_equal(
        restored.add(contribution(1, ones(7)), **last), rule.add(contribution(1, ones(7)), **last)
    )
    assert kept["count"] == 1
