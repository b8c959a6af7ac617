"""The live view of runs with several tasks."""

from typing import Any

import yaml
from rich.console import Console
from run_record import QUICKSTART

from fadelab.cli.view import RunView
from fadelab.experiment import Experiment
from fadelab_proto import federation_pb2 as pb


def view(*names: str) -> tuple[RunView, Console]:
    """Return a view of a run with these tasks, all of them digits, and what it prints to."""
    tree: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    parts = {key: tree.pop(key) for key in ("task", "partition", "training")}
    experiment = Experiment.model_validate(tree | {"tasks": dict.fromkeys(names, parts)})
    console = Console(record=True, width=160)
    return RunView(experiment, console), console


def status(*tasks: pb.TaskStatus) -> pb.ServerStatus:
    return pb.ServerStatus(started=True, joined=3, tasks=tasks)


def test_each_of_several_tasks_has_a_line() -> None:
    shown, console = view("near", "far_away")
    near = pb.TaskStatus(name="near", version=7, validated=True, metric=0.5, loss=1.25)
    near.largest_staleness, near.bound = 4, 12.345
    shown.status(status(near, pb.TaskStatus(name="far_away", version=1)))
    lines = console.export_text().splitlines()
    assert lines[0].startswith("t =")
    assert "version" not in lines[0]
    assert [line.rstrip() for line in lines[1:]] == [
        "  near      version 7, accuracy 0.500, loss 1.250, staleness up to 4, bound 12.3",
        "  far_away  version 1, -, staleness up to 0",
    ]


def test_news_come_in_no_flood() -> None:
    shown, console = view("near", "far_away")
    for version in range(50):
        shown.status(
            status(*(pb.TaskStatus(name=n, version=version) for n in ("near", "far_away")))
        )
    assert len(console.export_text().splitlines()) == 3


def test_one_task_stands_in_the_headline() -> None:
    shown, console = view("near")
    shown.status(status(pb.TaskStatus(name="near", version=2)))
    (line,) = console.export_text().splitlines()
    assert "near: version 2, -   link updates" in line
