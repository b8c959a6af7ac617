"""The error that SP-FL's reconstruction predicts from ample to scarce, and what the rule makes of it.

Normalised: the aggregate's squared error over the squared norm of the true mean gradient.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from tests.server.sp_fl_cell import DEVICES, MODULUS_BITS, cell, gradients
from tests.server.sp_fl_updates import BOTH, contribution, encoded, make_rule, play_round

from fadelab_server.aggregation.sp_fl import Allotment, Chances
from fadelab_server.allocator.sp_fl import equal_shares
from fadelab_server.allocator.sp_fl_error import GradientStatistics, variance
from fadelab_server.allocator.sp_fl_link import Shares, success
from fadelab_server.allocator.uplink import F64

DIMENSION = 600
DEADLINES_S = (0.40, 0.25, 0.20, 0.17, 0.15, 0.12, 0.10, 0.06)
UPDATES = gradients(DEVICES, dimension=DIMENSION)
GRADIENTS = np.stack([UPDATES[k] for k in range(DEVICES)]).astype(np.float64)
TRUTH = GRADIENTS.mean(axis=0)
SCALE = float(np.sum(TRUTH**2))
STANDS_IN = np.abs(GRADIENTS).mean(axis=0)
ALPHAS = (0.1, 0.25, *np.arange(0.3, 1.0, 0.05).tolist(), 0.99)


def quantiser_variance() -> F64:
    """Return the exact variance of rounding between levels that are equally far apart."""
    moduli = np.abs(GRADIENTS)
    low, high = (of(moduli, axis=1, keepdims=True) for of in (np.min, np.max))
    step = (high - low) / (2**MODULUS_BITS - 1)
    part = (moduli - low) / step % 1
    result: F64 = np.sum(step**2 * part * (1 - part), axis=1)
    return result


STATISTICS = GradientStatistics(
    np.sum(GRADIENTS**2, axis=1),
    np.full(DEVICES, np.sum(STANDS_IN**2)),
    np.abs(GRADIENTS) @ STANDS_IN,
    quantiser_variance(),
    kappa=1.0,
)


def split_error(deadline_s: float, shares: Shares) -> float:
    """Return the exact error of split packets that are divided by their probabilities."""
    sign, modulus = success(cell(deadline_s), shares)
    wrong = np.sign(GRADIENTS) * STANDS_IN - GRADIENTS
    bias = np.mean((1 - modulus)[:, None] * wrong, axis=0)
    return (float(np.sum(bias**2)) + variance(STATISTICS, sign, modulus)) / SCALE


def same_for_all(alpha: float, nu: float) -> Shares:
    every = np.ones(DEVICES)
    return Shares(alpha * every, every / DEVICES, nu * every)


def received_error(deadline_s: float) -> float:
    """Return the error of the mean over joint packets that arrive, by drawing who does."""
    chance, _ = success(cell(deadline_s), equal_shares(cell(deadline_s)))
    drawn = np.random.default_rng(3).random((4000, DEVICES)) < chance
    count = drawn.sum(axis=1)
    mean = drawn @ GRADIENTS / np.maximum(count, 1)[:, None]
    rounding = drawn @ STATISTICS.quantiser_variance / np.maximum(count, 1) ** 2
    return float(np.mean(np.sum((mean - TRUTH) ** 2, axis=1) + rounding)) / SCALE


@dataclass(frozen=True)
class Row:
    """Errors at one deadline."""

    joint_success: float
    received: float
    equal: float
    by_power: float
    by_both: float
    alpha: float
    """The best one, where band is decided too."""


@cache
def table() -> dict[float, Row]:
    rows = {}
    for deadline_s in DEADLINES_S:
        equal = equal_shares(cell(deadline_s))
        nu = float(equal.sign[0])
        both = {
            pair: split_error(deadline_s, same_for_all(*pair)) for pair in product(ALPHAS, repeat=2)
        }
        best = min(both, key=lambda pair: both[pair])
        rows[deadline_s] = Row(
            joint_success=float(np.median(success(cell(deadline_s), equal)[0])),
            received=received_error(deadline_s),
            equal=split_error(deadline_s, equal),
            by_power=min(split_error(deadline_s, same_for_all(a, nu)) for a in ALPHAS),
            by_both=both[best],
            alpha=best[0],
        )
    return rows


def test_with_ample_resources_all_are_alike() -> None:
    row = table()[0.40]
    assert row.joint_success > 0.95
    errors = (row.received, row.equal, row.by_power, row.by_both)
    assert max(errors) < 1.25 * min(errors)


def test_the_gain_begins_where_joint_packets_succeed_less_than_nine_times_in_ten() -> None:
    ahead = {t: row.by_both < row.received for t, row in table().items()}
    assert [ahead[t] for t in DEADLINES_S[2:]] == [True] * 6
    gains = [row.received / row.by_both for row in table().values()]
    assert gains == sorted(gains)
    assert gains[-1] > 4
    assert max(gains[:2]) < 1.15


def test_power_alone_gains_later_and_fails_in_the_end() -> None:
    for row in table().values():
        if row.joint_success > 0.85:
            assert row.by_power > 0.99 * row.received
        elif row.joint_success > 0.5:
            assert row.by_power < row.received
        else:
            # Signs on a fourth of the band arrive so seldom that dividing by it costs more.
            assert row.by_power > row.received
    assert sum(0.5 < row.joint_success < 0.85 for row in table().values()) == 2
    assert all(row.by_both <= row.by_power for row in table().values())


def test_an_equal_split_is_a_joint_packet_and_diverges_with_it() -> None:
    errors = [row.equal for row in table().values()]
    assert errors == sorted(errors)
    assert table()[0.15].equal > 2 * table()[0.15].received
    assert table()[0.10].equal > 1
    for deadline_s in (0.25, 0.15):
        sign, modulus = success(cell(deadline_s), equal_shares(cell(deadline_s)))
        np.testing.assert_allclose(modulus, 1)
        joint = played(sign, modulus, 2, scaling="ipw", packets="joint", allocation="equal")
        assert played(sign, modulus, 2, scaling="ipw") == pytest.approx(joint, rel=1e-6)


def test_scarcity_ends_as_signs_alone() -> None:
    assert [table()[t].alpha for t in (0.12, 0.10, 0.06)] == [max(ALPHAS)] * 3
    assert table()[0.40].alpha < 0.8


def played(sign: F64, modulus: F64, repeats: int, **settings: Any) -> float:
    """Return the error of the rule's aggregate under losses that it draws."""
    rule = make_rule(DIMENSION, loss="bernoulli", compensation={"kind": "running_mean"}, **settings)
    play_round(rule, UPDATES, dict.fromkeys(UPDATES, BOTH), version=10**6)  # learns the moduli
    learned = rule.compensation.pending()
    newest, error = np.zeros(DIMENSION, dtype=np.float32), 0.0
    for version in range(repeats):
        rule.compensation.restore(learned)
        rule.allot(
            Allotment(version, {k: Chances(float(sign[k]), float(modulus[k])) for k in UPDATES})
        )
        for device, update in UPDATES.items():
            chunks = encoded(update, bits=MODULUS_BITS, seed=version * DEVICES + device)
            given = contribution(rule, device, chunks, newest)
            moved = rule.add(given, newest=newest, roster=frozenset(UPDATES))
        assert moved is not None
        error += float(np.sum((moved - TRUTH) ** 2)) / SCALE
    return error / repeats


@pytest.mark.parametrize("deadline_s", [0.40, 0.15])
def test_the_rule_errs_as_predicted(deadline_s: float) -> None:
    row, equal = table()[deadline_s], equal_shares(cell(deadline_s))
    chance = success(cell(deadline_s), equal)
    joint = played(*chance, 40, packets="joint", allocation="equal", scaling="received")
    assert joint == pytest.approx(row.received, rel=0.25)
    pairs = {
        pair: split_error(deadline_s, same_for_all(*pair)) for pair in product(ALPHAS, repeat=2)
    }
    best = same_for_all(*min(pairs, key=lambda pair: pairs[pair]))
    split = played(*success(cell(deadline_s), best), 40, scaling="ipw")
    assert split == pytest.approx(row.by_both, rel=0.25)
    assert (split < joint) == (row.by_both < row.received)
