"""A task whose metric is an error in metres: summary, report and terminal obey its direction."""

import re
from pathlib import Path

import pytest
from commandline import command
from report_runs import change, make_run, make_task
from rich.console import Console
from run_record import RunWriter, write_whole_run

from fadelab.cli.view import RunView
from fadelab.exit_codes import ExitCode
from fadelab.report.model import Run
from fadelab.report.write import build_page
from fadelab.results.compute import compute_summary
from fadelab.results.record import RunRecord
from fadelab.results.schema import Summary, TaskBaseline
from fadelab_proto import federation_pb2 as pb

TASK = {"name": "synthetic_tracks", "model": {"kind": "track_mlp"}}


@pytest.fixture
def run(tmp_path: Path) -> RunWriter:
    written = RunWriter(tmp_path, task=TASK)
    for version, metric in enumerate((3.25, 1.5, 1.75)):
        if version:
            event = {"version": version, "published_mono_s": 103.0 + version}
            written.write("server", 1.0, "version_published", task=TASK["name"], **event)
        reading = {"version": version, "metric": metric, "loss": 0.9}
        written.write("server", 2.0, "validation", task=TASK["name"], **reading)
    written.write(
        "validator-0", 0.0, "baseline", task=TASK["name"], name="constant velocity", metric=2.5
    )
    write_whole_run(written)
    return written


def test_the_best_is_the_smallest(run: RunWriter) -> None:
    summary = compute_summary(run.folder)
    assert summary.valid
    task = summary.tasks["synthetic_tracks"]
    assert (task.metric, task.unit, task.higher_is_better) == ("ADE", "m", False)
    assert [point.value for point in task.curve] == [3.25, 1.5, 1.75]
    assert (task.final, task.best, task.versions) == (1.75, 1.5, 2)
    assert task.baseline == TaskBaseline(name="constant velocity", value=2.5)
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


def test_a_task_without_baseline_has_none(tmp_path: Path) -> None:
    write_whole_run(RunWriter(tmp_path))
    task = compute_summary(tmp_path).tasks["digits"]
    assert (task.baseline, task.unit, task.higher_is_better) == (None, "", True)


def in_metres() -> Run:
    task = make_task(10**7).model_copy(
        update={
            "metric": "ADE",
            "unit": "m",
            "higher_is_better": False,
            "baseline": TaskBaseline(name="constant velocity", value=2.5),
        }
    )
    return change(make_run(2), tasks={"synthetic_tracks": task})


def test_the_report_names_unit_direction_and_baseline() -> None:
    page = build_page(in_metres())
    assert "Lower ADE is better" in page
    assert "constant velocity" in page
    assert re.search(r">ADE \(m\)<", page)
    assert "accuracy" not in page
    without = build_page(make_run(2))
    assert "Higher accuracy is better" in without
    assert "dashed line" not in without
    assert re.search(r">accuracy<", without)


def test_the_terminal_names_metric_and_unit(run: RunWriter) -> None:
    ended = command("report", run.folder, COLUMNS="160")
    assert ended.returncode == ExitCode.VALID
    assert "ADE 1.750 m (best 1.500 m, constant velocity 2.500 m)" in ended.stdout


def test_the_live_view_names_metric_and_unit(run: RunWriter) -> None:
    console = Console(record=True, width=200)
    view = RunView(RunRecord.load(run.folder).experiment, console)
    task = pb.TaskStatus(name="synthetic_tracks", version=2, validated=True, metric=1.5, loss=0.9)
    view.status(pb.ServerStatus(started=True, tasks=[task]))
    assert "version 2, ADE 1.500 m, loss 0.900" in console.export_text()
