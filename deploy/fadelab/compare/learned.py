"""Measures of what a task has learned, and for how much of each resource."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fadelab.results.schema import CurvePoint, Summary, TaskResult

_SLACK_S = 0.5
"""A run may end a little before its planned duration."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A measure of what was learned."""

    title: str
    unit: str
    higher_is_better: bool | None
    """None: as the task's metric."""
    of: Callable[[Summary, TaskResult, float], float | None]
    argument: str | None = None
    """What stands behind the colon."""


def _final(_: Summary, task: TaskResult, __: float) -> float | None:
    return task.final


def _best(_: Summary, task: TaskResult, __: float) -> float | None:
    return task.best


def _versions(_: Summary, task: TaskResult, __: float) -> float:
    return float(task.versions)


def _at(summary: Summary, task: TaskResult, t_s: float) -> float | None:
    if t_s > summary.duration_s + _SLACK_S:
        return None
    return value_at(task.curve, t_s)


def _mean(summary: Summary, task: TaskResult, _: float) -> float | None:
    """Return the metric's mean over emulated time; each version counts until the next."""
    starts_s = [point.t_s for point in task.curve]
    if not starts_s or summary.duration_s <= starts_s[0]:
        return None
    weights_s = np.diff([*starts_s, max(summary.duration_s, starts_s[-1])])
    return float(np.average([point.value for point in task.curve], weights=weights_s))


def _time_to(_: Summary, task: TaskResult, target: float) -> float | None:
    reached = _first_reaching(task, target)
    return None if reached is None else reached.t_s


def _bytes_to(_: Summary, task: TaskResult, target: float) -> float | None:
    reached = _first_reaching(task, target)
    return None if reached is None else reached.wire_up_bytes / 1e6


def _energy_to(_: Summary, task: TaskResult, target: float) -> float | None:
    reached = _first_reaching(task, target)
    return None if reached is None else reached.energy_j


def _at_energy(_: Summary, task: TaskResult, energy_j: float) -> float | None:
    """Return the metric of the last version that the task had for so much; None if it spent less."""
    if task.energy_j is None or task.energy_j < energy_j:
        return None
    afforded = [
        point.value
        for point in task.curve
        if point.energy_j is not None and point.energy_j <= energy_j
    ]
    return afforded[-1] if afforded else None


def _task_energy(_: Summary, task: TaskResult, __: float) -> float | None:
    return task.energy_j


def _task_staleness(_: Summary, task: TaskResult, __: float) -> float | None:
    return float(max(task.staleness.versions)) if task.staleness.versions else None


def _task_payload(_: Summary, task: TaskResult, __: float) -> float:
    return sum(row.payload for row in task.packets if row.direction == "up") / 1e6


def _first_reaching(task: TaskResult, target: float) -> CurvePoint | None:
    for point in task.curve:
        if point.value >= target if task.higher_is_better else point.value <= target:
            return point
    return None


def value_at(curve: Sequence[CurvePoint], t_s: float) -> float | None:
    """Return the metric of the version in force at an emulated time; None before the first."""
    published = [point.value for point in curve if point.t_s <= t_s]
    return published[-1] if published else None


_TARGET = "a value of the metric"
_COST = False
"""Less of it is better."""

_JOULES = "joules of the task"
TASK_ENERGY = "task_energy"
"""What one task has cost, whatever is spent on others."""
QUALITIES = ("final", "best", "mean", "at", "at_energy")
"""What has the metric's own unit, and so a mean over tasks that share a metric."""

LEARNED = {
    "final": Learned("final {metric}", "", None, _final),
    "best": Learned("best {metric}", "", None, _best),
    "mean": Learned("mean {metric} over time", "", None, _mean),
    "at": Learned("{metric} after {x:g} s", "", None, _at, "emulated seconds"),
    "time_to": Learned("time to {metric} {x:g}", "s", _COST, _time_to, _TARGET),
    "bytes_to": Learned("uplink wire bytes to {metric} {x:g}", "MB", _COST, _bytes_to, _TARGET),
    "energy_to": Learned("the task's energy to {metric} {x:g}", "J", _COST, _energy_to, _TARGET),
    "at_energy": Learned("{metric} for {x:g} J", "", None, _at_energy, _JOULES),
    TASK_ENERGY: Learned("the task's energy", "J", _COST, _task_energy),
    "task_staleness": Learned("the task's largest staleness", "versions", _COST, _task_staleness),
    "task_payload": Learned("the task's uplink payload", "MB", _COST, _task_payload),
    "versions": Learned("versions published", "", None, _versions),
}
"""By the names that can be asked for; a colon and a number follow where an argument stands."""
