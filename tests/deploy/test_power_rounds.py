"""Runs of method emq by formula: what is learned, what rounds cost, and the tables made of both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fadelab.compare.round_tables import StoppedRun, formula_tables, round_tables, socket_tables
from fadelab.exit_codes import FadelabError
from fadelab.experiment import load_experiment
from fadelab.sweep.plan import PlannedRun
from fadelab.twin.learning import Learning
from fadelab.twin.power_rounds import formula_runs, sweep_by_formula
from fadelab.twin.power_schema import FormulaRun
from fadelab_agent.workbench import Workbench
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog

WORLD = Path(__file__).parents[2] / "examples" / "emq" / "rounds.yaml"
SMALL = ("devices.count=4", "task.model={kind: mlp, hidden: 16}", "partition={kind: iid}")
AQUILA = "method.innovation={kind: aquila, beta: 0.1}"
DENSE = "method.upload={kind: dense}"


def planned(variant: str, *settings: str, power: str = "full") -> PlannedRun:
    control = f"method.power_control={{kind: {power}}}"
    experiment = load_experiment(WORLD, [*SMALL, control, *settings])
    return PlannedRun(variant, variant, (), experiment.seed, experiment, "")


def bench_of(run: PlannedRun) -> Workbench:
    experiment = run.experiment
    return Workbench(
        WorkbenchConfig(
            task=experiment.task,
            partition=experiment.partition,
            training=experiment.training,
            devices=experiment.devices.count,
            seed=experiment.seed,
        )
    )


def figures(found: FormulaRun) -> dict[str, Any]:
    return found.model_dump(exclude={"variant"})


def test_a_round_of_dense_updates_is_their_mean(tmp_path: Path) -> None:
    run = planned("dense", DENSE)
    bench = bench_of(run)
    with EventLog(tmp_path, "twin", "0", SystemClock()) as log:
        learning = Learning(run.experiment, bench, tmp_path, log)
        reports = learning.train()
        learning.send(frozenset({3}))
        after = learning.metric()
    assert {report.bits for report in reports} == {32 * bench.model.dimension}
    works = [bench.device(number) for number in range(3)]
    weights = np.array([work.samples for work in works]) / sum(work.samples for work in works)
    steps = [work.train(bench.initial, 1).delta for work in works]
    mean = bench.initial + np.tensordot(weights, np.array(steps), axes=1).astype(np.float32)
    _, expected = bench.validator().evaluate(mean)
    assert after == pytest.approx(expected, abs=0.003)  # one sample of the test set


def test_learning_together_changes_nothing() -> None:
    budget = "method.budget={energy_j: 1.0e-3, latency_s: 1}"
    runs = [
        planned(kind, budget, AQUILA, power=kind) for kind in ("sqp_budget", "min_max", "wmmse")
    ]
    together = [figures(found) for found in formula_runs(runs)]
    alone = [figures(next(formula_runs([run]))) for run in runs]
    assert together == alone
    assert together[0]["rounds"] >= together[1]["rounds"] > 0
    assert all(found["spent_budget"] for found in together)


def test_rounds_end_with_the_budget_that_is_spent_first() -> None:
    (slow,) = formula_runs([planned("slow", "method.budget={latency_s: 0.4}")])
    assert slow.spent_budget == "latency"
    assert slow.latency_s > 0.4
    (counted,) = formula_runs([planned("counted", "method.budget={}", "max_versions=2")])
    assert (counted.rounds, counted.spent_budget) == (2, None)
    assert 0 < counted.nominal_share < counted.wire_share < 1


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("method.budget={energy_j: 1, latency_s: 1, counts: measured}", "measured times"),
        ("method.budget={}", "neither a budget nor max_versions"),
        (
            "radio.mobility={kind: random_waypoint, speed_mps: [1, 2]}",
            "do not stay where they are",
        ),
    ],
)
def test_runs_of_which_no_formula_tells_are_refused(setting: str, why: str) -> None:
    with pytest.raises(FadelabError, match=why):
        list(formula_runs([planned("run", setting)]))


def test_a_sweep_file_becomes_tables(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"""
experiment: {WORLD}
settings:
  devices.count: 4
  task.model: {{kind: mlp, hidden: 16}}
  partition: {{kind: iid}}
  method.budget: {{latency_s: 0.4}}
  method.power_control: {{kind: min_max}}
variants:
  min-max: {{}}
  full: {{method.power_control: {{kind: full}}}}
grid:
  quantiser: {{emq: {{}}, fedavg: {{method.upload: {{kind: dense}}}}}}
seeds: 2
baseline: min-max
"""
    )
    found = sweep_by_formula(sweep, jobs=1)
    assert len(found.runs) == 2 * 2 * 2
    file = tmp_path / "formula.json"
    file.write_text(found.model_dump_json())
    rounds, *_, difference, _ = formula_tables(file)
    assert rounds.title == "Rounds inside the same budgets (by formula, 2 seeds)"
    assert rounds.headings == ("grid point", "full", "min-max")
    assert [row[0].text for row in rounds.rows] == ["quantiser emq", "quantiser fedavg"]
    assert difference.headings == ("grid point", "full")


def test_means_and_paired_differences_by_hand() -> None:
    def run(variant: str, seed: int, rounds: int) -> StoppedRun:
        return StoppedRun(variant, (("data", "iid"),), seed, rounds, rounds / 10, None, 0.5)

    runs = [run("a", 1, 4), run("a", 2, 6), run("b", 1, 1), run("b", 2, 3)]
    tables = round_tables(runs, baseline="a", source="by hand")
    rounds, metric, nominal, wire, fewer, worse = tables
    assert [field.text for field in rounds.rows[0]] == ["data iid", "5.0 ± 12.7", "2.0 ± 12.7"]
    assert metric.rows[0][2].text == "0.200 ± 1.271"
    assert nominal.rows[0][1].text == "–"
    assert wire.rows[0][1].text == "0.500 ± 0.000"
    assert fewer.rows[0][1].text == "-3.0 [-3.0, -3.0]"
    assert worse.title == "Metric at the stop, less a (by hand)"


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(FadelabError, match="holds no figures by formula"):
        formula_tables(tmp_path / "no.json")
    with pytest.raises(FadelabError):
        socket_tables([tmp_path])
