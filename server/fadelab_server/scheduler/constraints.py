"""Whether a schedule obeys problem P of DMA-FL (arXiv 2305.13503): constraints (29b) to (29r).

Differences from print: (29e) is asked of all aggregations, as (29f) implies. (29h) compares the
ends of uploads, own period included; as printed it leaves the period out that holds the upload. And
every aggregation must complete one reception ("matched"), which P does not ask for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fadelab_server.scheduler.schedule import (
    DeviceTerms,
    PeriodCosts,
    Phases,
    TaskSchedule,
    TaskTerms,
    costs,
    phases,
    upload_ends_s,
)
from fadelab_server.scheduler.tensors import F64, completions, staleness, unmatched


@dataclass(frozen=True, slots=True)
class Violation:
    """One constraint that does not hold."""

    constraint: str
    """Its number in the paper, such as ``29c``; or ``matched`` or ``staleness``."""
    task: int | None
    """None for what concerns all tasks of a device."""
    excess: float
    """How far it is missed, in the constraint's own unit; relative where ``tolerance`` is."""


@dataclass(frozen=True, slots=True, eq=False)
class Drifting:
    """The rect functions y of one task, sampled; shape ``(periods, times)`` by completed period."""

    t_s: F64
    idle: F64
    active: F64


def rect_functions(periods: Phases, t_s: F64) -> Drifting:
    """Return y_ID and y_AC (definition 5) of every completed period at the times ``t_s``."""
    idle = np.array([periods.idle_side(float(t)) <= 0 for t in t_s], dtype=np.float64).T
    active = np.array([periods.active_side(float(t)) < 0 for t in t_s], dtype=np.float64).T
    return Drifting(t_s, idle, active)


def violations(
    schedules: Sequence[TaskSchedule],
    tasks: Sequence[TaskTerms],
    devices: DeviceTerms,
    *,
    rects: Sequence[Drifting] | None = None,
    tolerance: float = 1e-9,
) -> list[Violation]:
    """Return every constraint that a schedule misses; none if it is feasible.

    Args:
        schedules: one for each task.
        tasks: what is given about them.
        devices: what is given about the devices.
        rects: y of every task, to be held against (29i) to (29l); left out they are not asked for.
        tolerance: relative to the size of what is compared.

    """
    spent = [costs(*pair, devices) for pair in zip(schedules, tasks, strict=True)]
    found = list(_of_devices(schedules, spent, devices))
    for number, schedule in enumerate(schedules):
        found += (
            Violation(name, number, excess)
            for name, excess in _of_task(schedule, tasks[number], spent[number])
        )
        if rects is not None:
            periods = phases(schedule, spent[number])
            found += (
                Violation(name, number, excess)
                for name, excess in _of_rects(periods, rects[number])
            )
    return [violation for violation in found if violation.excess > tolerance]


def _of_devices(
    schedules: Sequence[TaskSchedule], spent: Sequence[PeriodCosts], devices: DeviceTerms
) -> Iterator[Violation]:
    used_j = sum((cost.device_j.sum(axis=1) for cost in spent), np.zeros_like(devices.send_w))
    yield Violation("29c", None, _over(used_j, devices.energy_budget_j))
    columns = min(schedule.cpu_hz.shape[1] for schedule in schedules)
    clocks = sum(
        (schedule.cpu_hz[:, :columns] for schedule in schedules),
        np.zeros((len(devices.send_w), columns)),
    )
    yield Violation("29m", None, _over(devices.cpu_min_hz[:, None], clocks))
    yield Violation("29m", None, _over(clocks, devices.cpu_max_hz[:, None]))


def _of_task(
    schedule: TaskSchedule, task: TaskTerms, spent: PeriodCosts
) -> Iterator[tuple[str, float]]:
    received, uploaded = schedule.received, schedule.uploaded
    aggregations = received.shape[1]
    lasting_s = spent.period_s.sum(axis=1) + schedule.final_idle_s
    yield "29b", max(_over(lasting_s, task.window_s), _over(task.window_s, lasting_s))
    receptions = float(received.sum())
    yield "29d", max(aggregations - receptions, receptions - aggregations - task.staleness_cap)
    yield "29e", float(np.abs(uploaded.sum(axis=0) - 1).max())
    yield "29f", abs(float(uploaded.sum()) - aggregations)
    yield "29g", float(np.abs((1 - received) * schedule.idle_s).max())
    ends_s = upload_ends_s(schedule, spent)
    yield "29h", _over(ends_s[:-1], ends_s[1:]) if aggregations > 1 else 0.0
    yield "29n", max(_over(task.steps_min, schedule.steps), _over(schedule.steps, task.steps_max))
    yield "29o", max(_over(1.0, schedule.batch_size), _over(schedule.batch_size, task.samples))
    times_s = (schedule.idle_s, spent.upload_s, spent.download_s, spent.compute_s)
    yield "29p", max(float((-time_s).max()) for time_s in times_s)
    yield "29q", float((-schedule.final_idle_s).max())
    both = np.stack([received, uploaded])
    yield "29r", float(np.minimum(np.abs(both), np.abs(1 - both)).max())
    completed = completions(received, uploaded)
    yield "matched", float(len(unmatched(completed)))
    yield "staleness", float(staleness(completed) - task.staleness_cap)


def _of_rects(periods: Phases, rects: Drifting) -> Iterator[tuple[str, float]]:
    pairs = [(periods.idle_side(float(t)), periods.active_side(float(t))) for t in rects.t_s]
    idle_side, active_side = (np.array(side).T for side in zip(*pairs, strict=True))
    for inside, outside, side, rect in (
        ("29i", "29j", idle_side, rects.idle),
        ("29k", "29l", active_side, rects.active),
    ):
        yield inside, float((side * rect).max(initial=0.0))
        yield outside, float((side * (rect - 1)).max(initial=0.0))


def _over(value: F64 | float, most: F64 | float) -> float:
    """Return by which part of it ``value`` is above ``most`` at worst."""
    size = np.maximum(np.maximum(np.abs(value), np.abs(most)), 1e-300)
    return float(np.max((np.asarray(value) - most) / size))
