"""The checks of DMA-FL's claims, on runs whose every number is known."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from period_record import applied, ended, scheduled, write_periods
from run_record import QUICKSTART, RunWriter, write_whole_run

from fadelab.results.dma_checks import Check, MeasuredRun, check_all, main, measure


def experiment(
    importance: float = 1.0, *, idle_pace: float = 1.0, active_pace: float = 1.0, seed: int = 1
) -> dict[str, Any]:
    """Return the settings of a run with two tasks, in the place of a single one."""
    tree = yaml.safe_load(QUICKSTART.read_text())
    parts = {key: tree[key] for key in ("task", "partition", "training")}
    drift = {"kind": "rotation", "period_s": 1.0, "degrees_per_period": 5.0}
    paced = drift | {"idle_pace": idle_pace, "active_pace": active_pace}
    return {
        "task": None,
        "partition": None,
        "training": None,
        "tasks": {"digits": parts | {"importance": importance, "drift": paced}, "letters": parts},
        "method": METHOD,
        "seed": seed,
    }


METHOD = {"name": "dma_fl"}


def run(folder: Path, settings: dict[str, Any], **period: Any) -> MeasuredRun | None:
    """Make a valid run whose last period of task digits is as told."""
    folder.mkdir()
    writer = RunWriter(folder, **settings)
    write_periods(writer)
    publish(writer)
    ended(writer, 1, "digits", 2.95, **period)
    return measure(folder)


def publish(writer: RunWriter) -> None:
    """Have both tasks publish a version, without which no run is valid."""
    published: dict[str, Any] = {"version": 1, "published_mono_s": 104.0}
    writer.write("server", 1.0, "version_published", task="letters", **published)


def measured(
    tmp_path: Path, runs: list[tuple[dict[str, Any], dict[str, Any]]]
) -> list[MeasuredRun]:
    found = [run(tmp_path / str(n), *given_and_period(*own)) for n, own in enumerate(runs)]
    return [one for one in found if one is not None]


def given_and_period(
    given: dict[str, Any], period: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    return experiment(**given), period


def claimed(checks: list[Check], words: str) -> Check:
    (found,) = [check for check in checks if words in check.claim]
    return found
