"""Every number of a comparison, worked out by hand from small sweeps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from run_record import QUICKSTART
from sweep_runs import (
    SPEEDS,
    VARIANTS,
    plan_of,
    summary_of,
    sweep_folder,
    write_planned,
    write_run,
)

from fadelab.compare.compute import compare
from fadelab.compare.curves import curves_of
from fadelab.compare.found import find_runs
from fadelab.compare.measures import measures_of
from fadelab.compare.rows import main_table, run_table, verdict
from fadelab.compare.schema import Comparison, DifferenceResult, Group
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import load_experiment
from fadelab.results.sp_fl_schema import ClassArrivals, SpFlRounds

NOT_VALID = {"valid": False, "invalid_reasons": ["Link updates were late."]}
FINAL = {"dense": [0.6, 0.7, 0.65], "half": [0.8, 0.8, 0.7]}


def swept(path: Path, finals: dict[str, list[float | None]], **changes: Any) -> Path:
    """Write a sweep whose variants end with these accuracies, by seed; None is not there."""
    plan = plan_of(path, seeds=3, **changes)
    folder = sweep_folder(path / "sweep", plan)
    for run in plan.runs:
        value = finals[run.variant][run.seed - 1]
        if value is not None:
            write_planned(folder, run, value)
    return folder.path


def compared(
    *paths: Path, metrics: Sequence[str] = ("final",), baseline: str | None = None
) -> Comparison:
    return compare(find_runs(list(paths)), title="t", metrics=metrics, baseline=baseline)


def group(comparison: Comparison, variant: str, **point: str) -> Group:
    (found,) = [
        g for g in comparison.groups if g.variant == variant and point.items() <= g.point.items()
    ]
    return found


def complaint(*paths: Path, **options: Any) -> str:
    with pytest.raises(FadelabError) as caught:
        compared(*paths, **options)
    assert caught.value.code == ExitCode.USAGE
    return str(caught.value)


def test_means_and_paired_differences_by_hand(tmp_path: Path) -> None:
    comparison = compared(swept(tmp_path, FINAL))  # type: ignore[arg-type]
    assert (comparison.baseline, comparison.variants) == ("dense", ["dense", "half"])
    assert comparison.remarks == []
    mean = group(comparison, "half").results["final"].mean
    assert mean is not None
    assert (mean.n, mean.mean) == (3, pytest.approx(2.3 / 3))
    assert mean.std == pytest.approx(0.0577350, abs=1e-6)
    # 4.302653 times 0.057735 over the root of 3.
    assert mean.high == pytest.approx(2.3 / 3 + 0.1434218, abs=1e-6)
    difference = group(comparison, "half").results["final"].difference
    assert difference is not None
    # Of 0.2, 0.1 and 0.05: mean 0.116667, s = 0.0763763.
    assert difference.mean == pytest.approx(0.35 / 3)
    assert difference.low == pytest.approx(0.35 / 3 - 4.302653 * 0.0763763 / 3**0.5, abs=1e-6)
    assert difference.relative == pytest.approx(0.35 / 1.95)
    assert (difference.seeds, difference.unpaired) == ([1, 2, 3], [])
    assert group(comparison, "dense").results["final"].difference is None


def test_another_baseline_turns_the_differences(tmp_path: Path) -> None:
    sweep = swept(tmp_path, FINAL, baseline="half")  # type: ignore[arg-type]
    for comparison in (compared(sweep), compared(sweep, baseline="half")):
        difference = group(comparison, "dense").results["final"].difference
        assert difference is not None
        assert difference.mean == pytest.approx(-0.35 / 3)
    assert "allowed: dense, half" in complaint(sweep, baseline="third")


def test_runs_that_are_missing_or_not_valid_count_nowhere_and_are_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, seeds=3)
    folder = sweep_folder(tmp_path / "sweep", plan)
    for run in plan.runs:
        if (run.variant, run.seed) == ("half", 2):
            write_planned(folder, run, 0.0, **NOT_VALID)
        elif (run.variant, run.seed) != ("dense", 3):
            write_planned(folder, run, FINAL[run.variant][run.seed - 1])
    comparison = compared(folder.path)
    half, dense = group(comparison, "half"), group(comparison, "dense")
    assert [run.state for run in half.runs] == ["valid", "invalid", "valid"]
    assert [run.state for run in dense.runs] == ["valid", "valid", "missing"]
    assert half.runs[1].reasons == ["Link updates were late."]
    mean, difference = half.results["final"].mean, half.results["final"].difference
    assert mean is not None
    assert (mean.n, mean.mean) == (2, pytest.approx(0.75))
    assert difference is not None
    assert (difference.seeds, difference.unpaired) == ([1], [2, 3])
    assert (difference.mean, difference.low) == (pytest.approx(0.2), None)
    assert comparison.remarks == [
        "Not valid by their own measurements: 1 of 6 runs. Means are of valid runs alone.",
        "Not there, or not at an end: 1 of 6 runs. Means are of valid runs alone.",
    ]
    texts = [[field.text for field in row] for row in main_table(comparison, "final").rows]
    assert texts[1][1] == "2 of 3"
    assert texts[1][4:] == ["1 (without seed 2, 3)", "one pair: no interval"]
    listed = [[field.text for field in row] for row in run_table(comparison).rows]
    assert ["half", "2", "invalid", "0", "Link updates were late."] in listed


def test_a_run_of_another_experiment_than_planned_is_missing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, seeds=1)
    folder = sweep_folder(tmp_path / "sweep", plan)
    write_planned(folder, plan.runs[0], 0.5)
    write_run(folder.run_dir(plan.runs[1].name), plan.runs[0].experiment, summary_of({0.0: 0.9}))
    found = group(compared(folder.path), "half").runs[0]
    assert found.state == "missing"
    assert found.reasons == ["its experiment is another than the sweep's plan has"]


def test_pairs_are_made_within_a_grid_point(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, grid=SPEEDS)
    folder = sweep_folder(tmp_path / "sweep", plan)
    for run in plan.runs:
        fast = run.point[0][1] == "20-30"
        value = 0.5 + 0.1 * (run.variant == "half") * (2 if fast else 1) - 0.2 * fast
        write_planned(folder, run, value + 0.01 * run.seed)
    comparison = compared(folder.path)
    assert [axis.numbers for axis in comparison.axes] == [[5.0, None]]
    for label, expected in (("5", 0.1), ("20-30", 0.2)):
        key = {"radio.mobility.speed_mps": label}
        difference = group(comparison, "half", **key).results["final"].difference
        assert difference is not None
        assert (difference.n, difference.mean) == (2, pytest.approx(expected))


CURVE = {0.0: 0.1, 10.0: 0.5, 30.0: 0.9, 50.0: 0.8}


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("final", 0.8),
        ("best", 0.9),
        ("versions", 3.0),
        ("at:29.9", 0.5),
        ("at:30", 0.9),
        ("at:60.2", 0.8),
        ("at:61", None),
        ("time_to:0.5", 10.0),
        ("time_to:0.85", 30.0),
        ("time_to:0.95", None),
        ("bytes_to:0.85", 2.0),
        # 10 s of 0.1, 20 of 0.5, 20 of 0.9 and 10 of 0.8.
        ("mean", (1 + 10 + 18 + 8) / 60),
    ],
)
def test_what_was_learned_by_hand(metric: str, value: float | None) -> None:
    summary = summary_of(CURVE)
    (measure,) = measures_of(metric, summary.tasks)
    assert measure.of(summary) == (None if value is None else pytest.approx(value))


def test_a_metric_that_shall_fall_is_reached_from_above() -> None:
    summary = summary_of({0.0: 5.0, 10.0: 2.0, 20.0: 1.0})
    task = summary.tasks["digits"].model_copy(
        update={"higher_is_better": False, "metric": "ADE", "unit": "m"}
    )
    summary = summary.model_copy(update={"tasks": {"digits": task}})
    (final,) = measures_of("final", summary.tasks)
    (reached,) = measures_of("time_to:2", summary.tasks)
    assert (final.title, final.unit, final.higher_is_better) == ("final ADE", "m", False)
    (versions,) = measures_of("versions", summary.tasks | {"digits": task})
    assert (versions.unit, versions.higher_is_better) == ("", None)
    assert reached.of(summary) == 10.0


def test_costs_are_those_of_the_summary() -> None:
    summary = summary_of(CURVE)
    values = {}
    for name in ("wire_up", "energy", "staleness", "uploads", "wall"):
        (measure,) = measures_of(name, summary.tasks)
        values[name] = measure.of(summary)
    total = summary.total
    assert values["wire_up"] == total.bytes.up.wire / 1e6
    assert values["energy"] == pytest.approx(2 * (1.2 + 0.4 + 0.1))
    assert values["staleness"] == pytest.approx(
        sum(total.staleness.versions) / len(total.staleness.versions)
    )
    assert (values["uploads"], values["wall"]) == (total.updates.complete, 64.2)


def test_what_arrived_of_signs_and_moduli_can_be_compared() -> None:
    arrived = ClassArrivals(packets=8, predicted=0.875, empirical=0.75, carried=0.5)
    rounds = SpFlRounds(
        loss="deadline", rounds=1, updates=8, both=0, signs_alone=6, none=2, sign=arrived,
        modulus=ClassArrivals(packets=0), mean_sign_power=0.5, last_kappa=None,
    )  # fmt: skip
    plain = summary_of(CURVE)
    summary = plain.model_copy(update={"sp_fl": rounds})
    values = {}
    for name in ("signs", "signs_predicted", "signs_carried", "moduli"):
        (measure,) = measures_of(name, summary.tasks)
        values[name] = measure.of(summary)
        assert measure.of(plain) is None
        assert measure.higher_is_better is None
    assert values == {"signs": 75, "signs_predicted": 87.5, "signs_carried": 50, "moduli": None}


def test_every_task_of_a_run_has_its_measures(tmp_path: Path) -> None:
    one, two = summary_of(CURVE), summary_of({0.0: 0.2}, task="mnist")
    both = one.model_copy(update={"tasks": one.tasks | two.tasks})
    write_run(tmp_path / "run", load_experiment(QUICKSTART), both)
    comparison = compared(tmp_path / "run", metrics=["final", "wire_up"])
    assert comparison.main == ["digits/final", "mnist/final", "all/final", "wire_up"]
    mean = comparison.groups[0].results["mnist/final"].mean
    assert mean is not None
    assert mean.mean == 0.2
    # The mean of 0.2 and of the last value of CURVE.
    both_tasks = comparison.groups[0].results["all/final"].mean
    assert both_tasks is not None
    assert both_tasks.mean == pytest.approx((0.2 + one.tasks["digits"].curve[-1].value) / 2)
    assert comparison.measures["all/final"].title == "mean of tasks: final accuracy"


def test_tasks_of_different_metrics_have_no_mean(tmp_path: Path) -> None:
    one, two = summary_of(CURVE), summary_of({0.0: 0.2}, task="tracks")
    metres = two.tasks["tracks"].model_copy(update={"metric": "ADE", "higher_is_better": False})
    both = one.model_copy(update={"tasks": one.tasks | {"tracks": metres}})
    write_run(tmp_path / "run", load_experiment(QUICKSTART), both)
    assert compared(tmp_path / "run").main == ["digits/final", "tracks/final"]


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        ("fnial", "there is no metric 'fnial'; final, best, mean, at:X, time_to:X, bytes_to:X,"),
        ("time_to", "--metric time_to: expected time_to:X, X being a value of the metric"),
        ("final:3", "--metric final:3: expected final alone"),
        ("at:soon", "--metric at:soon: 'soon' is not a number"),
        ("at:nan", "--metric at:nan: 'nan' is not a number"),
    ],
)
def test_a_wrong_metric_is_a_sentence(metric: str, sentence: str) -> None:
    with pytest.raises(FadelabError) as caught:
        list(measures_of(metric, summary_of(CURVE).tasks))
    assert sentence in str(caught.value)


def test_targets_that_were_never_reached_are_counted(tmp_path: Path) -> None:
    sweep = swept(tmp_path, FINAL)  # type: ignore[arg-type]
    comparison = compared(sweep, metrics=["time_to:0.68"])
    result = group(comparison, "dense").results["time_to:0.68"]
    assert result.mean is not None
    assert (result.mean.n, result.without) == (1, [1, 3])
    texts = [field.text for field in main_table(comparison, "time_to:0.68").rows[0]]
    assert texts[2].endswith("(of 1; 2 never)")


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "expected"),
    [
        (0.1, 0.2, True, "better"),
        (0.1, 0.2, False, "worse"),
        (-0.2, -0.1, True, "worse"),
        (-0.2, -0.1, False, "better"),
        (-0.1, 0.1, True, "open"),
        (0.1, 0.2, None, "higher"),
        (-0.2, -0.1, None, "lower"),
        (None, None, True, "one pair: no interval"),
    ],
)
def test_verdicts(
    low: float | None, high: float | None, higher_is_better: bool | None, expected: str
) -> None:
    difference = DifferenceResult(
        n=3, mean=0.15, low=low, high=high, relative=None, seeds=[1, 2, 3], unpaired=[]
    )
    assert verdict(difference, higher_is_better=higher_is_better) == expected


def test_single_runs_are_grouped_by_their_settings(tmp_path: Path) -> None:
    folders = []
    for fraction, seed, value in ((0.5, 1, 0.7), (0.5, 2, 0.8), (0.1, 1, 0.6)):
        experiment = load_experiment(QUICKSTART, [f"method.upload.fraction={fraction}"], seed=seed)
        folders.append(tmp_path / f"run-{fraction}-{seed}")
        write_run(folders[-1], experiment, summary_of({0.0: value}))
    comparison = compared(*folders)
    half, tenth = "quickstart (fraction=0.5)", "quickstart (fraction=0.1)"
    assert comparison.variants == [half, tenth]
    mean = group(comparison, half).results["final"].mean
    difference = group(comparison, tenth).results["final"].difference
    assert mean is not None
    assert mean.mean == pytest.approx(0.75)
    assert difference is not None
    assert (difference.mean, difference.unpaired) == (pytest.approx(-0.1), [2])
    assert "are both seed 1 of" in complaint(folders[0], swapped(folders[0], tmp_path / "copy"))


def swapped(run: Path, copy: Path) -> Path:
    """Copy a run as one would to give it twice."""
    copy.mkdir()
    for name in ("manifest.json", "summary.json"):
        (copy / name).write_bytes((run / name).read_bytes())
    return copy


def test_names_of_single_runs_are_longer_where_short_ones_would_agree(tmp_path: Path) -> None:
    for name, setting in (("a", "radio.packet_loss_up=0.5"), ("b", "method.alpha=0.5")):
        write_run(tmp_path / name, load_experiment(QUICKSTART, [setting]), summary_of(CURVE))
    variants = compared(tmp_path / "a", tmp_path / "b").variants
    assert len(set(variants)) == 2
    kinds = ("kind=dense", "kind=topk, fraction=0.5, indices=best")
    for name, upload in zip(
        ("c", "d"), ("{kind: dense}", "{kind: topk, fraction: 0.5}"), strict=True
    ):
        experiment = load_experiment(QUICKSTART, ["name=other", f"method.upload={upload}"])
        write_run(tmp_path / name, experiment, summary_of(CURVE))
    assert compared(tmp_path / "c", tmp_path / "d").variants == [
        f"other ({kind})" for kind in kinds
    ]


def test_a_run_that_ended_early_is_no_invalid_one(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, seeds=1)
    folder = sweep_folder(tmp_path / "sweep", plan)
    write_planned(folder, plan.runs[0], 0.5)
    cut = summary_of({0.0: 0.1}).model_copy(update=NOT_VALID)
    write_run(folder.run_dir(plan.runs[1].name), plan.runs[1].experiment, cut, failure="killed")
    comparison = compared(folder.path)
    assert group(comparison, "half").runs[0].state == "failed"
    assert comparison.remarks == ["Ended early: 1 of 2 runs. Means are of valid runs alone."]


def test_a_run_beside_a_sweep(tmp_path: Path) -> None:
    sweep = swept(tmp_path, FINAL)  # type: ignore[arg-type]
    alone = tmp_path / "alone"
    write_run(alone, load_experiment(QUICKSTART, seed=1), summary_of({0.0: 0.3}))
    comparison = compared(sweep, alone)
    assert comparison.variants == ["dense", "half", "quickstart"]
    difference = group(comparison, "quickstart").results["final"].difference
    assert difference is not None
    assert difference.mean == pytest.approx(-0.3)


def test_variants_of_two_sweeps_with_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.append(swept(tmp_path / name, FINAL, name=name))  # type: ignore[arg-type]
    comparison = compared(*paths)
    assert comparison.variants == ["one/dense", "one/half", "two/dense", "two/half"]


def test_different_tasks_are_refused(tmp_path: Path) -> None:
    for name, task in (("a", "digits"), ("b", "mnist")):
        experiment = load_experiment(QUICKSTART, [f"name={name}"])
        write_run(tmp_path / name, experiment, summary_of(CURVE, task=task))
    assert complaint(tmp_path / "a", tmp_path / "b").endswith(
        "learned digits by accuracy and "
        f"{tmp_path}/b mnist by accuracy: different tasks or metrics cannot be compared"
    )


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "is neither a sweep nor a run directory" in complaint(tmp_path)
    sweep_folder(tmp_path / "sweep", plan_of(tmp_path))
    assert "no run has come to an end" in complaint(tmp_path / "sweep")
    (tmp_path / "manifest.json").write_text("{")
    assert "manifest.json cannot be read" in complaint(tmp_path)


def test_a_summary_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    write_run(tmp_path / "run", load_experiment(QUICKSTART), summary_of(CURVE))
    write_run(tmp_path / "old", load_experiment(QUICKSTART, ["seed=5"]), summary_of(CURVE))
    path = tmp_path / "old" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    runs = compared(tmp_path / "run", tmp_path / "old").groups[0].runs
    assert "`fadelab report" in runs[1].reasons[0]


def test_unlike_channels_at_one_grid_point_are_remarked_on(tmp_path: Path) -> None:
    variants = VARIANTS | {"half": {"radio.mobility.speed_mps": [1, 2]}}
    comparison = compared(swept(tmp_path, FINAL, variants=variants))  # type: ignore[arg-type]
    assert "(radio.mobility.speed_mps)" in comparison.remarks[0]


def test_curves_hold_a_version_until_the_next(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, variants=None, seeds=2)
    folder = sweep_folder(tmp_path / "sweep", plan)
    for run, end in zip(plan.runs, (0.6, 0.8), strict=True):
        write_planned(folder, run, end)
    found = find_runs([folder.path])
    curves = curves_of(
        "digits", compare(found, title="t", metrics=["final"], baseline=None), found.runs
    )
    assert curves is not None
    assert not curves.are_intervals
    (curve,) = curves.by_group
    before, after = curve.t_s < 20.0, curve.t_s >= 20.0
    assert curve.mean[before] == pytest.approx(0.1)
    assert curve.mean[after] == pytest.approx(0.7)
    assert curve.low[after] == pytest.approx(0.6)
    assert curve.high[after] == pytest.approx(0.8)
    assert curve.t_s[-1] == 60.0


def test_with_enough_runs_bands_are_intervals(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, variants=None, seeds=5)
    folder = sweep_folder(tmp_path / "sweep", plan)
    ends = (0.6, 0.7, 0.7, 0.7, 0.8)
    for run, end in zip(plan.runs, ends, strict=True):
        write_planned(folder, run, end)
    found = find_runs([folder.path])
    comparison = compare(found, title="t", metrics=["final"], baseline=None)
    curves = curves_of("digits", comparison, found.runs)
    mean = comparison.groups[0].results["final"].mean
    assert curves is not None
    assert mean is not None
    assert curves.are_intervals
    (curve,) = curves.by_group
    assert (curve.low[0], curve.high[0]) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (curve.low[-1], curve.high[-1]) == (pytest.approx(mean.low), pytest.approx(mean.high))
