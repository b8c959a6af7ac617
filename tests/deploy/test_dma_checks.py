"""The checks of DMA-FL's claims, on runs whose every number is known."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from period_record import applied, ended, two_tasks, write_periods
from run_record import QUICKSTART, RunWriter, write_whole_run

from fadelab.results.dma_checks import Check, MeasuredRun, check_all, main, measure
from fadelab.sweep.plan import load_plan

LAST = "digits"
"""The task whose settings and last period tests change."""


def written(folder: Path, period: dict[str, Any], **settings: Any) -> RunWriter:
    """Write a run whose last period of task digits is as told."""
    folder.mkdir()
    writer = RunWriter(folder, **two_tasks(**settings))
    write_periods(writer)
    ended(writer, 1, LAST, 2.95, **period)
    return writer


def measured(folder: Path, period: dict[str, Any], **settings: Any) -> MeasuredRun:
    found = measure(written(folder, period, **settings).folder)
    assert found is not None
    return found


def pairs(
    tmp_path: Path, knob: str, levels: dict[float, list[dict[str, Any]]]
) -> list[MeasuredRun]:
    """Return runs at some values of a setting; each list has one period for each seed."""
    return [
        measured(tmp_path / f"{level}-{seed}", period, **{knob: level}, seed=seed)
        for level, periods in levels.items()
        for seed, period in enumerate(periods)
    ]


def claimed(checks: list[Check], words: str) -> Check:
    (found,) = [check for check in checks if words in check.claim]
    return found


def test_staleness_within_its_cap_holds_and_beyond_it_fails(tmp_path: Path) -> None:
    run = measured(tmp_path / "a", {})
    check = claimed(check_all([run]), "staler")
    assert check.holds
    assert check.figures == {"tasks": 2, "updates_over_cap": 0, "largest": 2, "smallest_cap": 2}
    broken = run.periods.tasks[LAST].model_copy(update={"over_cap": 1})
    tasks = run.periods.tasks | {LAST: broken}
    late = MeasuredRun(run.experiment, run.periods.model_copy(update={"tasks": tasks}), run.tasks)
    assert claimed(check_all([late]), "staler").holds is False
    assert claimed(check_all([]), "staler").holds is None


def test_runs_that_are_not_valid_or_have_no_periods_say_nothing(tmp_path: Path) -> None:
    late = written(tmp_path / "late", {})
    applied(late, 1, LAST, 2.95, 3)
    assert measure(late.folder) is None
    (tmp_path / "other").mkdir()
    other = RunWriter(tmp_path / "other")
    write_whole_run(other)
    assert measure(other.folder) is None


def test_computing_must_cost_what_was_modelled(tmp_path: Path) -> None:
    run = measured(tmp_path / "a", {})
    computing = claimed(check_all([run]), "compute: at most")
    assert (computing.holds, computing.figures["worst"]) == (True, 1.0)
    # Sent: 4 times 40 mJ; by formula 4 times 100 kbit at 1 Mbit/s and 0.2 W.
    sending = claimed(check_all([run]), "uplink")
    assert sending.holds is None
    assert sending.figures["mean"] == pytest.approx(2.0)
    metered = run.periods.metered.model_copy(
        update={"compute": 1.03 * run.periods.modelled.compute}
    )
    slow = MeasuredRun(
        run.experiment, run.periods.model_copy(update={"metered": metered}), run.tasks
    )
    assert claimed(check_all([slow]), "compute: at most").holds is False


def test_importance_moves_steps_and_energy_to_a_task(tmp_path: Path) -> None:
    levels: dict[float, list[dict[str, Any]]] = {
        1.0: [{"steps": 4, "compute_j": 2.0}, {"steps": 5, "compute_j": 2.0}, {}],
        100.0: [
            {"steps": 9, "compute_j": 4.0},
            {"steps": 11, "compute_j": 4.5},
            {"steps": 9, "compute_j": 3.5},
        ],
    }
    checks = check_all(pairs(tmp_path, "importance", levels))
    steps = claimed(checks, "number of local steps of digits grows with its importance (1 to 100)")
    # 5, 6 and 5 more; besides, both have twelve in their other periods.
    assert steps.holds
    assert steps.figures["difference"] == pytest.approx(16 / 3)
    assert steps.figures["at_lowest"] == pytest.approx(12 + 13 / 3)
    assert claimed(checks, "metered energy of digits").figures["difference"] == pytest.approx(2.0)
    share = claimed(checks, "share of all local steps of digits")
    assert share.figures["at_lowest"] == pytest.approx((16 / 20 + 17 / 21 + 16 / 20) / 3)
    # All ended with the same model.
    assert claimed(checks, "final quality of digits").holds is None
    assert not [check for check in checks if "letters" in check.claim]


ACTIVE = ("active_pace", "compute_s", "mean computing time of digits shrinks")
IDLE = ("idle_pace", "idle_s", "mean waiting time of digits shrinks")


@pytest.mark.parametrize(
    ("knob", "key", "claim", "with_more_drift", "holds"),
    [
        (*ACTIVE, [0.3, 0.35, 0.3], True),
        (*IDLE, [0.9, 0.95, 0.9], False),
        (*ACTIVE, [0.3, 0.9, 0.55], None),
        (*IDLE, [0.3], None),
    ],
)
def test_more_drift_shortens_what_drifts(
    tmp_path: Path,
    knob: str,
    key: str,
    claim: str,
    with_more_drift: list[float],
    holds: bool | None,
) -> None:
    levels = {
        0.5: [{key: 0.5}, {key: 0.55}, {key: 0.5}],
        # Between the lowest and the highest value nothing is looked at.
        1.0: [{key: 2.0}],
        4.0: [{key: value} for value in with_more_drift],
    }
    check = claimed(check_all(pairs(tmp_path, knob, levels)), claim)
    assert check.holds is holds
    assert check.figures["pairs"] == len(with_more_drift)


def test_runs_that_differ_in_more_are_not_compared(tmp_path: Path) -> None:
    runs = [
        measured(tmp_path / "a", {}, importance=1.0, idle_pace=1.0),
        measured(tmp_path / "b", {}, importance=9.0, idle_pace=2.0),
    ]
    assert not [check for check in check_all(runs) if "digits" in check.claim]


def test_each_setting_around_them_is_compared_for_itself(tmp_path: Path) -> None:
    runs = [
        measured(tmp_path / f"{pace}-{level}", {}, importance=level, idle_pace=pace)
        for pace in (1.0, 2.0)
        for level in (1.0, 9.0)
    ]
    claims = [check.claim for check in check_all(runs) if check.claim.startswith("number")]
    assert claims == [
        f"number of local steps of digits grows with its importance (1 to 9), setting {n} of 2"
        for n in (1, 2)
    ]


def test_runs_without_a_common_seed_cannot_tell(tmp_path: Path) -> None:
    runs = [
        measured(tmp_path / "a", {}, importance=1.0, seed=1),
        measured(tmp_path / "b", {}, importance=9.0, seed=2),
    ]
    check = claimed(check_all(runs), "number of local steps of digits")
    assert (check.holds, check.figures) == (None, {"pairs": 0})


@pytest.mark.parametrize(
    ("name", "runs", "variants"),
    [("baselines", 90, 6), ("importance", 16, 1), ("active-drift", 16, 1), ("idle-drift", 16, 1)],
)
def test_the_sweeps_of_the_claims_are_sound(name: str, runs: int, variants: int) -> None:
    plan = load_plan(QUICKSTART.parent / "dma_fl" / f"{name}.yaml")
    assert len(plan.runs) == runs
    assert len({run.variant for run in plan.runs}) == variants
    # What differs between the runs of one seed is one setting of one task, as the checks need it.
    if variants == 1:
        one_seed = [run.experiment.learning["turning"] for run in plan.runs if run.seed == 1]
        drifts = {task.drift.model_dump_json() for task in one_seed}
        assert len({task.importance for task in one_seed}) * len(drifts) == 2


def test_the_checks_are_written_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "run", {}).folder
    monkeypatch.setattr(sys, "argv", ["dma_checks", str(folder)])
    with pytest.raises(SystemExit) as ended_with:
        main()
    assert ended_with.value.code == 0
    checks = json.loads(capsys.readouterr().out)
    assert [check["holds"] for check in checks] == [True, True, None, None]
