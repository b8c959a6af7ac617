"""Sweeps and finished runs of them, written by hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_runs import make_run, make_task
from run_record import QUICKSTART

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment
from fadelab.results.schema import CurvePoint, Summary
from fadelab.sweep.plan import PlannedRun, SweepPlan, load_plan
from fadelab.sweep.record import SweepFolder, new_record

VARIANTS = {
    "dense": {"method.upload": {"kind": "dense"}},
    "half": {"method.upload": {"kind": "topk", "fraction": 0.5}},
}
SPEEDS = {"radio.mobility.speed_mps": [[5, 5], [20, 30]]}


def sweep_file(folder: Path, **changes: Any) -> Path:
    """Write a sweep file: two variants and two seeds if nothing else is said."""
    tree = {"experiment": str(QUICKSTART), "variants": VARIANTS, "seeds": 2} | changes
    path = folder / "sweep.yaml"
    kept = {key: value for key, value in tree.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False))
    return path


def plan_of(folder: Path, **changes: Any) -> SweepPlan:
    return load_plan(sweep_file(folder, **changes))


def complaint(folder: Path, **changes: Any) -> str:
    """Return what is said of a wrong sweep file, without the file's name."""
    path = sweep_file(folder, **changes)
    with pytest.raises(FadelabError) as caught:
        load_plan(path)
    assert caught.value.code == ExitCode.USAGE
    return str(caught.value).replace(str(path), "FILE")


def sweep_folder(path: Path, plan: SweepPlan) -> SweepFolder:
    """Make a sweep's folder as the command does."""
    for name in ("runs", "experiments", "logs"):
        (path / name).mkdir(parents=True, exist_ok=True)
    folder = SweepFolder(path, new_record(plan))
    folder.write()
    return folder


def summary_of(values: Mapping[float, float], *, task: str = "digits") -> Summary:
    """Return a summary of two devices whose accuracy was ``values`` from these seconds on."""
    summary = make_run(2).summary
    curve = [
        CurvePoint(
            t_s=t_s, version=version, value=value, loss=1.0, wire_up_bytes=1_000_000 * version
        )
        for version, (t_s, value) in enumerate(values.items())
    ]
    learned = make_task(0, points=1).model_copy(
        update={
            "curve": curve,
            "final": curve[-1].value,
            "best": max(values.values()),
            "versions": len(curve) - 1,
        }
    )
    return summary.model_copy(update={"tasks": {task: learned}})


def write_run(
    folder: Path, experiment: Experiment, summary: Summary | None, *, failure: str | None = None
) -> None:
    folder.mkdir(parents=True)
    manifest: dict[str, object] = {"experiment": experiment.model_dump(mode="json")}
    if failure is not None:
        manifest["failure"] = failure
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if summary is not None:
        (folder / "summary.json").write_text(summary.model_dump_json())


def write_planned(folder: SweepFolder, run: PlannedRun, final: float, **changes: Any) -> None:
    """Write a run as if it had been made: it ends with this accuracy."""
    summary = summary_of({0.0: 0.1, 20.0: final}).model_copy(update=changes)
    write_run(folder.run_dir(run.name), run.experiment, summary)
