"""Learning curves of several runs on one time axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab.compare.found import FoundRun
from fadelab.compare.schema import Comparison, Group
from fadelab.results.paired import estimate_mean

_STEPS = 160
_ENOUGH_FOR_INTERVALS = 5
"""Of fewer runs an interval of every moment is wider than the picture."""

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Curve:
    """The metric of one group over emulated time."""

    group: Group
    t_s: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of one task."""

    task: str
    metric: str
    unit: str
    """Of the metric; empty where it has none."""
    by_group: tuple[Curve, ...]
    are_intervals: bool
    """Whether bands are confidence intervals; with few runs they are the runs' range."""


def curves_of(task: str, comparison: Comparison, runs: Sequence[FoundRun]) -> Curves | None:
    """Return the curves of a task; None if no valid run has any."""
    samples = [
        (group, sampled)
        for group in comparison.groups
        if (sampled := _samples(task, _runs_of(group, runs))) is not None
    ]
    if not samples:
        return None
    enough = min(len(values) for _, (_, values) in samples) >= _ENOUGH_FOR_INTERVALS
    summary = next(run.summary for run in runs if run.is_valid)
    assert summary is not None
    return Curves(
        task,
        summary.tasks[task].metric,
        summary.tasks[task].unit,
        tuple(_curve(group, t_s, values, are_intervals=enough) for group, (t_s, values) in samples),
        enough,
    )


def _runs_of(group: Group, runs: Sequence[FoundRun]) -> list[FoundRun]:
    folders = {run.folder for run in group.runs if run.state == "valid"}
    return [run for run in runs if str(run.folder) in folders]


def _samples(task: str, runs: Sequence[FoundRun]) -> tuple[FloatArray, FloatArray] | None:
    """Return times and values, of shape ``(steps,)`` and ``(runs, steps)``.

    A version counts until the next one; the axis ends where the shortest run does.
    """
    summaries = [run.summary for run in runs if run.summary is not None]
    summaries = [summary for summary in summaries if summary.tasks[task].curve]
    if not summaries:
        return None
    begin_s = max(summary.tasks[task].curve[0].t_s for summary in summaries)
    end_s = min(summary.duration_s for summary in summaries)
    t_s = np.linspace(begin_s, max(begin_s, end_s), _STEPS)
    rows = []
    for summary in summaries:
        curve = summary.tasks[task].curve
        place = np.searchsorted([point.t_s for point in curve], t_s, side="right") - 1
        rows.append(np.array([point.value for point in curve])[np.maximum(place, 0)])
    return t_s, np.array(rows)


def _curve(group: Group, t_s: FloatArray, values: FloatArray, *, are_intervals: bool) -> Curve:
    if not are_intervals:
        return Curve(group, t_s, values.mean(axis=0), values.min(axis=0), values.max(axis=0))
    half = np.array([estimate_mean(column).half_width for column in values.T], dtype=np.float64)
    mean = values.mean(axis=0)
    return Curve(group, t_s, mean, mean - half, mean + half)
