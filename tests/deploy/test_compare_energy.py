"""Measures of several tasks and of energy, and what was learned against it; by hand."""

from pathlib import Path
from typing import Any

import pytest
from run_record import QUICKSTART
from sweep_runs import plan_of, summary_of, sweep_folder, write_planned, write_run

from fadelab.compare.compute import compare
from fadelab.compare.found import find_runs
from fadelab.compare.markdown import write_markdown
from fadelab.compare.measures import measures_of
from fadelab.compare.page import build_comparison
from fadelab.compare.schema import Comparison
from fadelab.compare.tradeoff import tradeoff_table, tradeoffs
from fadelab.experiment import load_experiment
from fadelab.results.period_schema import PeriodJoules, Periods
from fadelab.results.schema import PacketBytes, Staleness, Summary

COSTS = {0.0: (0.1, 0.0), 5.0: (0.4, 2.0), 9.0: (0.5, 4.5)}
"""Accuracy and joules spent by these seconds."""


def costly(factor: float = 1.0, **changes: Any) -> Summary:
    """Return a summary whose task has cost this; the last period ended after the last version."""
    summary = summary_of({t_s: value for t_s, (value, _) in COSTS.items()})
    task = summary.tasks["digits"]
    curve = [
        point.model_copy(update={"energy_j": factor * COSTS[point.t_s][1]}) for point in task.curve
    ]
    update = {"curve": curve, "energy_j": 6.0 * factor} | changes
    return summary.model_copy(update={"tasks": {"digits": task.model_copy(update=update)}})


def periods(metered: float) -> Periods:
    return Periods(
        tasks={},
        modelled=PeriodJoules(compute=1.0, uplink=0.5, downlink=0.25),
        metered=PeriodJoules(compute=metered, uplink=0.5, downlink=0.5),
        overruns=2,
        trainings=9,
    )


def value(metric: str, summary: Summary) -> float | None:
    (measure,) = measures_of(metric, summary.tasks)
    return measure.of(summary)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("energy_to:0.4", 2.0),
        ("energy_to:0.45", 4.5),
        ("energy_to:0.9", None),
        ("at_energy:1.9", 0.1),
        ("at_energy:2", 0.4),
        ("at_energy:6", 0.5),
        ("at_energy:6.1", None),
        ("task_energy", 6.0),
    ],
)
def test_the_price_of_what_was_learned(metric: str, expected: float | None) -> None:
    assert value(metric, costly()) == expected


def test_what_a_task_sent_and_how_stale_it_was() -> None:
    rows = [
        PacketBytes(direction=way, packet_class="update", packets=3, payload=size, headers=120)
        for way, size in (("up", 2_000_000), ("down", 5_000_000))
    ]
    summary = costly(packets=rows, staleness=Staleness(versions=[0, 3, 1], seconds=[0, 9, 1]))
    assert (value("task_payload", summary), value("task_staleness", summary)) == (2.0, 3.0)
    assert value("task_staleness", costly()) is None


def test_modelled_and_metered_energy_are_two_measures() -> None:
    summary = costly().model_copy(update={"periods": periods(2.0)})
    assert (value("energy_modelled", summary), value("energy_metered", summary)) == (1.75, 3.0)
    assert value("overruns", summary) == 2.0
    assert value("energy_metered", costly()) is None


def swept(path: Path) -> Comparison:
    plan = plan_of(path, seeds=2)
    folder = sweep_folder(path / "sweep", plan)
    for run in plan.runs:
        metered = {"dense": 4.0, "half": 2.0}[run.variant] + 0.25 * run.seed
        final = {"dense": 0.8, "half": 0.7}[run.variant] + 0.01 * run.seed
        write_planned(folder, run, final, periods=periods(metered))
    return compare(find_runs([folder.path]), title="t", metrics=["final"], baseline="dense")


def test_accuracy_is_held_against_metered_energy_by_variant(tmp_path: Path) -> None:
    comparison = swept(tmp_path)
    assert list(tradeoffs(comparison)) == [("final", "energy_metered")]
    content = tradeoff_table(comparison, "final", "energy_metered")
    assert content.title == "Final accuracy against metered energy of periods"
    dense, half = ([field.text for field in row] for row in content.rows)
    assert dense[-2:] == ["baseline", "baseline"]
    # Variant, accuracy, metered and modelled energy, and two paired differences.
    assert [text.split(" ")[0] for text in half] == [
        "half", "0.7150", "3.375", "1.750", "\u22120.1000", "\u22122.000"
    ]  # fmt: skip
    assert "## Final accuracy against metered energy of periods" in write_markdown(comparison)
    page = build_comparison(comparison, find_runs([tmp_path / "sweep"]).runs)
    assert "final accuracy against metered energy of periods, by variant" in page


def test_one_of_several_tasks_is_held_against_its_own_energy(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, seeds=2)
    folder = sweep_folder(tmp_path / "sweep", plan)
    for run in plan.runs:
        tasks = {name: costly(factor).tasks["digits"] for name, factor in (("a", 1.0), ("b", 3.0))}
        write_planned(folder, run, 0.5, periods=periods(2.0), tasks=tasks)
    comparison = compare(find_runs([folder.path]), title="t", metrics=["final"], baseline=None)
    assert list(tradeoffs(comparison)) == [
        ("a/final", "a/task_energy"),
        ("b/final", "b/task_energy"),
        ("all/final", "energy_metered"),
    ]
    own = tradeoff_table(comparison, "b/final", "b/task_energy")
    assert [field.text.split(" ")[0] for field in own.rows[0][1:3]] == ["0.5000", "18.00"]
    assert not any("modelled" in heading for heading in own.headings)


def test_one_variant_has_nothing_to_be_held_against(tmp_path: Path) -> None:
    write_run(tmp_path / "run", load_experiment(QUICKSTART), costly())
    found = find_runs([tmp_path / "run"])
    comparison = compare(found, title="t", metrics=["final", "energy"], baseline=None)
    assert list(tradeoffs(comparison)) == []
    assert "energy_metered" not in comparison.measures


def test_costs_are_no_quality(tmp_path: Path) -> None:
    found = find_runs([swept_folder(tmp_path)])
    comparison = compare(found, title="t", metrics=["time_to:0.5", "energy"], baseline=None)
    assert list(tradeoffs(comparison)) == []


def swept_folder(path: Path) -> Path:
    swept(path)
    return path / "sweep"
