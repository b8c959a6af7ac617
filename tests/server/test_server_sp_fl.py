"""SP-FL's aggregation rule: what counts of what arrived, scalings, compensation, kappa."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.server.sp_fl_cell import gradients
from tests.server.sp_fl_updates import (
    BOTH,
    MODULUS,
    SIGN,
    contribution,
    encoded,
    make_rule,
    play_round,
)

from fadelab_server.aggregation.sp_fl import Allotment, Chances
from fadelab_server.aggregation.sp_fl_compensation import KappaEstimate
from fadelab_server.sp_fl_config import SpFlConfig

D = 2000
CONSTANT = {"kind": "constant", "modulus": 0.5}
SIGNS = frozenset((SIGN,))


def test_whole_updates_give_the_mean() -> None:
    updates = gradients(3)
    moved = play_round(make_rule(D), updates, dict.fromkeys(updates, BOTH))
    np.testing.assert_allclose(moved, np.mean(list(updates.values()), axis=0), atol=1e-3)


def test_lone_signs_take_the_compensation_and_lone_moduli_count_nothing() -> None:
    updates = gradients(3)
    rule = make_rule(D, compensation=CONSTANT)
    moved = play_round(rule, updates, {0: BOTH, 1: SIGNS, 2: frozenset((MODULUS,))})
    expected = (updates[0] + 0.5 * np.where(updates[1] < 0, -1, 1)) / 2
    np.testing.assert_allclose(moved, expected, atol=1e-3)
    seen = {device: (own.sign, own.modulus) for device, own in rule.last_arrivals.items()}
    assert seen == {0: (1.0, 1.0), 1: (1.0, 0.0), 2: (0.0, 0.0)}


def test_signs_that_nothing_stands_in_for_arrive_but_do_not_move_the_model() -> None:
    updates = gradients(2)
    rule = make_rule(D, compensation={"kind": "zero"})
    moved = play_round(rule, updates, {0: BOTH, 1: SIGNS})
    np.testing.assert_allclose(moved, updates[0], atol=1e-3)
    assert rule.last_arrivals[1].sign == 1.0


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"scaling": "ipw"}, 1 / 0.1 / 2),
        ({"scaling": "clipped", "least_scale": 0.25}, 1 / 0.25 / 2),
        ({"scaling": "received"}, 1.0),
    ],
)
def test_scalings(settings: dict[str, Any], factor: float) -> None:
    updates = gradients(2)
    rule = make_rule(D, **settings)
    moved = play_round(rule, updates, {0: BOTH}, chances=Chances(0.1, 0.9))
    np.testing.assert_allclose(moved, factor * updates[0], rtol=1e-3, atol=1e-2)


def test_joint_packets_count_only_whole_and_lost_ones_may_repeat_the_last_step() -> None:
    updates = gradients(2)
    rule = make_rule(D, packets="joint", allocation="equal", lost="last_global")
    first = play_round(rule, updates, {0: BOTH, 1: SIGNS})
    np.testing.assert_allclose(first, updates[0], atol=1e-3)
    second = play_round(rule, updates, {1: BOTH}, version=1)
    np.testing.assert_allclose(second, (updates[1] + first) / 2, atol=1e-3)


def test_majority_vote_steps_to_where_most_signs_point() -> None:
    updates = gradients(3)
    rule = make_rule(D, packets="signs", allocation="equal", compensation=CONSTANT, vote="majority")
    moved = play_round(rule, updates, dict.fromkeys(updates, SIGNS))
    votes = np.sum([np.where(own < 0, -1, 1) for own in updates.values()], axis=0)
    np.testing.assert_array_equal(moved, 0.5 * np.sign(votes))


def test_each_compensation_remembers_what_it_says() -> None:
    updates = gradients(2)
    for kind, wanted in (
        ("running_mean", np.mean([np.abs(own) for own in updates.values()], axis=0)),
        ("last_device", np.abs(updates[0])),
        ("last_global", np.abs(np.mean(list(updates.values()), axis=0))),
    ):
        rule = make_rule(D, compensation={"kind": kind})
        assert rule.compensation.moduli(0) is None
        play_round(rule, updates, dict.fromkeys(updates, BOTH))
        np.testing.assert_allclose(rule.compensation.moduli(0), wanted, atol=1e-3)


def test_a_round_that_nothing_arrived_in_moves_nothing() -> None:
    rule = make_rule(D)
    assert not play_round(rule, gradients(2), {}).any()
    assert [own.sign for own in rule.last_arrivals.values()] == [0.0, 0.0]


def test_who_may_contribute_and_when() -> None:
    rule = make_rule(D)
    assert "not decided" in str(rule.refuse(device=0, base_version=0, newest=0))
    rule.allot(Allotment(0, {0: Chances(1, 1)}))
    assert rule.refuse(device=0, base_version=0, newest=0) is None
    assert "silent" in str(rule.refuse(device=1, base_version=0, newest=0))
    assert "over" in str(rule.refuse(device=0, base_version=0, newest=1))


def test_a_restored_rule_goes_on_with_the_round() -> None:
    updates = gradients(3)
    newest = np.zeros(D, dtype=np.float32)

    def halfway() -> Any:
        rule = make_rule(D)
        play_round(rule, updates, dict.fromkeys(updates, BOTH))
        rule.allot(Allotment(1, dict.fromkeys(updates, Chances(0.5, 0.5))))

        given = contribution(rule, 0, encoded(updates[0]), newest)
        assert rule.add(given, newest=newest, roster=frozenset(updates)) is None
        return rule

    rule, other = halfway(), make_rule(D)
    other.restore(rule.pending())
    assert other.allotment == rule.allotment
    assert other.arrivals == rule.arrivals
    assert other.kappa.value == rule.kappa.value
    np.testing.assert_array_equal(other.end_round(newest=newest), rule.end_round(newest=newest))
    np.testing.assert_array_equal(other.compensation.moduli(0), rule.compensation.moduli(0))


def test_kappa_is_one_for_errors_that_are_alike_and_small_for_those_that_are_not() -> None:
    draw = np.random.default_rng(1)
    common = draw.normal(size=D).astype(np.float32)
    alike, apart = KappaEstimate(D), KappaEstimate(D)
    for _ in range(10):
        alike.add(common)
        apart.add(draw.normal(size=D).astype(np.float32))
    alike.round_over(20)
    apart.round_over(20)
    assert alike.value == pytest.approx(1.0, abs=1e-5)
    assert apart.value == pytest.approx(1 / 20, abs=0.02)


def test_drawn_losses_come_as_often_as_the_formula_says_and_the_mean_is_unbiased() -> None:
    rounds, chances = 600, Chances(0.6, 0.5)
    updates = gradients(4, dimension=64)
    rule = make_rule(64, loss="bernoulli", scaling="ipw", compensation=CONSTANT)
    total, signs, moduli = np.zeros(64), 0.0, 0.0
    for version in range(rounds):
        arrived = dict.fromkeys(updates, BOTH)
        total += play_round(rule, updates, arrived, version=version, chances=chances)
        signs += sum(own.sign for own in rule.last_arrivals.values())
        moduli += sum(own.modulus for own in rule.last_arrivals.values())
    count = 4 * rounds
    # Six standard deviations: the draws are seeded, so this cannot flake, only change.
    assert abs(signs / count - 0.6) < 6 * np.sqrt(0.6 * 0.4 / count)
    assert abs(moduli / signs - 0.5) < 6 * np.sqrt(0.25 / signs)
    expected = np.mean([0.5 * g + 0.5 * 0.5 * np.sign(g) for g in updates.values()], axis=0)
    largest = max(np.abs(g).max() for g in updates.values())
    assert np.abs(total / rounds - expected).max() < 6 * largest / 0.6 / np.sqrt(count)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"packets": "signs", "allocation": "equal"}, "no moduli ever arrive"),
        ({"packets": "joint", "allocation": "full"}, "nothing to divide"),
        ({"vote": "majority"}, "vote is majority"),
        ({"packets": "joint", "allocation": "equal", "loss": "datagram"}, "one lost datagram"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        SpFlConfig.model_validate(settings)
