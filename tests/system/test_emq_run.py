"""Whole runs of EMQ on real sockets: uploads take what power control planned."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.system.commands import ROOT, Ended
from tests.system.test_whole_runs import events

from fadelab.experiment import load_experiment
from fadelab.sweep.plan import PlannedRun
from fadelab.twin.power_rounds import formula_runs

QUICK = ROOT / "examples" / "emq" / "quick.yaml"
_SHORTER = (
    "devices.count=6",
    "training.local_epochs=1",
    "training.growth=0",
    "training.longest=null",
    "radio.rate.bandwidth_hz=100000",
    # Downloads of a few frames at high rates say little of links on a busy machine.
    "validity.rate_ratio=[0.8, 1.1]",
)
_FULL = ("method.power_control={kind: full}", "method.budget={}")


def rounds_of(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.output
    found = ended.summary["rounds"]
    assert isinstance(found, dict)
    return found


def test_uploads_take_what_was_planned_and_the_slowest_is_the_planned_one(
    run: Callable[..., Ended],
) -> None:
    ended = run(
        "full",
        *_SHORTER,
        "max_versions=3",
        *_FULL,
        experiment=QUICK,
    )
    rounds = rounds_of(ended)
    assert len(rounds["rounds"]) == 3
    assert rounds["largest_rate_gap"] < 1e-6
    # Rates are those of the plan in every tick of every round, on every link that sends.
    assert rounds["rates_compared"] > 3 * 6
    assert rounds["largest_rate_drift"] < 1e-6
    for one in rounds["rounds"]:
        assert one["devices"] == list(range(6))
        assert one["coefficient"] == [1.0] * 6
        planned, measured = one["planned_s"], one["measured_s"]
        # At full power devices differ by far more than a busy machine delays them.
        assert planned.index(max(planned)) == one["slowest"]
        # No upload is faster than its link, but for a burst of two frames.
        for plan_s, took_s, rate_bps in zip(planned, measured, one["rate_bps"], strict=True):
            assert took_s > plan_s - 3 * 1514 * 8 / rate_bps - 0.01
        assert max(measured) < 1.5 * max(planned) + 0.5
    assert rounds["slowest_as_planned"] == 3
    assert "3 versions are published" in ended.output
    assert_formula_agrees(ended, *_SHORTER, "max_versions=3", *_FULL)


def assert_formula_agrees(ended: Ended, *settings: str) -> None:
    """Hold the run's learning and plans to those of the same run without a network."""
    experiment = load_experiment(QUICK, settings)
    (twin,) = formula_runs([PlannedRun("run", "run", (), experiment.seed, experiment, "")])
    rounds = ended.summary["rounds"]
    assert twin.rounds == rounds["rounds_ended"]
    # Updates arrive in another order, so that sums differ in their last bits.
    assert twin.nominal_share == pytest.approx(rounds["nominal_share"], rel=1e-3)
    assert twin.latency_s == pytest.approx(rounds["planned_s"], rel=1e-3)
    assert twin.energy_j == pytest.approx(rounds["planned_j"], rel=1e-3)
    assert twin.metric == pytest.approx(ended.summary["tasks"]["digits"]["final"], abs=0.01)


def test_a_run_ends_with_its_budget_and_says_so(run: Callable[..., Ended]) -> None:
    ended = run(
        "budget",
        *_SHORTER,
        "method.budget={energy_j: 1.0e+3, latency_s: 3}",
        experiment=QUICK,
    )
    rounds = rounds_of(ended)
    assert rounds["stop_reason"] == "the latency budget of 3 s is spent (planned)"
    costs = [one["round_planned_s"] for one in rounds["rounds"]]
    assert sum(costs) > 3 > sum(costs[:-1])
    assert ended.summary["valid"] is True
    assert (rounds["rounds_ended"], rounds["spent_budget"]) == (len(costs), "latency")
    # By the quantiser 16 bits of 32 at most; on the wire, acknowledgements of downloads come on top.
    assert rounds["nominal_share"] < rounds["wire_share"] < 0.8
    metered = events(ended.run_dir, "upload_metered")
    assert len(metered) == 6 * len(costs)
    assert all(float(str(event["upload_j"])) > 0 for event in metered)


def test_powers_may_be_decided_anew_whenever_a_device_has_finished(
    run: Callable[..., Ended],
) -> None:
    ended = run(
        "again",
        *_SHORTER,
        *_FULL,
        "max_versions=2",
        "method.during_round=recompute",
        "method.upload={kind: codec, codec: {kind: aquila}}",
        "method.innovation={kind: aquila, beta: 0.1}",
        experiment=QUICK,
    )
    rounds = rounds_of(ended)
    assert rounds["rounds_ended"] == 2
    plans: list[Any] = events(ended.run_dir, "round_planned")
    assert sum(plan["again"] is True for plan in plans) >= 2
    assert rounds["largest_rate_gap"] < 1e-6
    first: dict[object, dict[str, Any]] = {}
    for plan in plans:
        before = first.setdefault(plan["version"], plan)
        # At full power whoever remains is disturbed less, and who has finished is silent.
        for at, device in enumerate(before["devices"]):
            now = plan["devices"].index(device)
            assert plan["coefficient"][now] in {0.0, 1.0}
            if plan["coefficient"][now]:
                assert plan["rate_bps"][now] >= (1 - 1e-9) * before["rate_bps"][at]
