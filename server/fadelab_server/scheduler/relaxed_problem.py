"""Problem P of DMA-FL (arXiv 2305.13503) with R and U between 0 and 1, for small instances.

Variables are, for each task, R, U, the logarithms of f, B and e, and the waiting times over the
window; times and energies are put in, so that (20) to (26) are no constraints. Drifts are constant
in time, which makes the sums over rect functions of term (f) products of drift and duration and
(27), (28) and (29i) to (29l) superfluous. Terms (a) and (e) do not depend on these variables and are
left out. Every aggregation completes a reception, which the paper does not ask for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fadelab_server.scheduler.objective import CostWeights, TaskWeights
from fadelab_server.scheduler.schedule import (
    DeviceTerms,
    PeriodCosts,
    TaskSchedule,
    TaskTerms,
    costs,
)
from fadelab_server.scheduler.successive_convex import SmoothProblem
from fadelab_server.scheduler.tensors import F64, completions

_PARTS = 6


@dataclass(frozen=True, slots=True, eq=False)
class LearningTerms:
    """What the bound needs of one task; arrays of shape ``(devices,)``."""

    weights: TaskWeights
    learning_rate: float
    smoothness: float
    variability: float
    proximal: float
    regularised_gradient_sq: float
    dissimilarity: F64
    data_variance: F64
    idle_drift_per_s: F64
    active_drift_per_s: F64


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """A whole problem: tasks, what is to be learned of them, devices, weights, aggregations."""

    tasks: tuple[TaskTerms, ...]
    learning: tuple[LearningTerms, ...]
    devices: DeviceTerms
    weights: CostWeights
    aggregations: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return that of all variables: tasks, parts, devices, aggregations."""
        return len(self.tasks), _PARTS, len(self.devices.send_w), self.aggregations


def value(instance: Instance, schedules: Sequence[TaskSchedule]) -> complex:
    """Return the objective (29a) without terms (a) and (e); complex numbers go through."""
    total: complex = 0.0
    for task, learning, schedule in zip(instance.tasks, instance.learning, schedules, strict=True):
        spent = costs(schedule, task, instance.devices)
        bound = _bound(task, learning, schedule, spent) / learning.learning_rate
        weights = instance.weights
        energy = weights.device_j * spent.device_j.sum()
        energy = energy + weights.station_j * spent.download_j.sum()
        total += weights.learning * learning.weights.importance * bound
        total += learning.weights.energy * energy
    return total / instance.aggregations


def _bound(
    task: TaskTerms, learning: LearningTerms, schedule: TaskSchedule, spent: PeriodCosts
) -> complex:
    """Return terms (b), (c), (d) and (f) without their prefix."""
    eta, rho = learning.learning_rate, learning.proximal
    e, batch, samples = schedule.steps, schedule.batch_size, task.samples
    spread = 2 * (samples - 1) / samples * learning.variability**2
    spread = spread * learning.data_variance[:, None]
    each = eta * e * learning.dissimilarity[:, None]
    each = each + 2 * learning.smoothness * eta**2 * e * spread * (1 / batch - 1 / samples)
    each = each + 2 * rho * eta**2 * e * learning.regularised_gradient_sq * (
        rho / 2 * eta * (e - 1) + e
    )
    idle, active = learning.idle_drift_per_s[:, None], learning.active_drift_per_s[:, None]
    each = each + 2 * active * spent.compute_s
    each = each + 2 * idle * (schedule.received * schedule.idle_s + spent.download_s)
    completed = completions(schedule.received, schedule.uploaded)
    total: complex = (completed.sum(axis=2) * each).sum()
    # The upload of a period stands in another column.
    uploads: complex = (2 * idle * spent.upload_s * completed.sum(axis=1)).sum()
    return total + uploads


def schedules_of(instance: Instance, variables: F64) -> list[TaskSchedule]:
    """Return the schedules that a vector of variables stands for."""
    found = []
    parts = variables.reshape(instance.shape)
    for task, (received, uploaded, clock, batch, steps, idle) in zip(
        instance.tasks, parts, strict=True
    ):
        schedule = TaskSchedule(
            received,
            uploaded,
            np.exp(clock),
            np.exp(batch),
            np.exp(steps),
            idle * task.window_s[:, None],
            np.zeros(received.shape[0]),
        )
        found.append(schedule)
    return found


def variables_of(instance: Instance, schedules: Sequence[TaskSchedule]) -> F64:
    """Return the vector of variables that stands for schedules."""
    parts = [
        [
            schedule.received,
            schedule.uploaded,
            np.log(schedule.cpu_hz),
            np.log(schedule.batch_size),
            np.log(schedule.steps),
            schedule.idle_s / task.window_s[:, None],
        ]
        for task, schedule in zip(instance.tasks, schedules, strict=True)
    ]
    return np.array(parts).reshape(-1)


def relaxed(instance: Instance, *, fixed: Sequence[TaskSchedule] | None = None) -> SmoothProblem:
    """Return the relaxed problem.

    Args:
        instance: the problem.
        fixed: schedules whose R and U are given, so that resources and waiting alone are sought.

    """
    lower, upper = _box(instance)
    if fixed is not None:
        given = variables_of(instance, fixed).reshape(instance.shape)
        lower[:, :2], upper[:, :2] = given[:, :2], given[:, :2]
    return SmoothProblem(
        objective=lambda variables: value(instance, schedules_of(instance, variables)),
        constraints=lambda variables: _constraints(instance, variables),
        lower=lower.reshape(-1),
        upper=upper.reshape(-1),
        equal=_one_uploader(instance),
        most=_receptions(instance),
    )


def _box(instance: Instance) -> tuple[F64, F64]:
    """Return limits of all variables: (29n), (29o), (29p) and what is left of (29r)."""
    lower, upper = np.zeros(instance.shape), np.ones(instance.shape)
    for number, task in enumerate(instance.tasks):
        lower[number, 2] = np.log(instance.devices.cpu_min_hz)[:, None]
        upper[number, 2] = np.log(instance.devices.cpu_max_hz)[:, None]
        upper[number, 3] = np.log(task.samples)
        lower[number, 4], upper[number, 4] = np.log(task.steps_min), np.log(task.steps_max)
    return lower, upper


def _one_uploader(instance: Instance) -> tuple[F64, F64]:
    """Return (29e) as rows; (29f) follows."""
    tasks, _, _, aggregations = instance.shape
    rows = np.zeros((tasks, aggregations, *instance.shape))
    for task, aggregation in np.ndindex(tasks, aggregations):
        rows[task, aggregation, task, 1, :, aggregation] = 1
    count = tasks * aggregations
    return rows.reshape(count, -1), np.ones(count)


def _receptions(instance: Instance) -> tuple[F64, F64]:
    """Return (29d) as rows: at least G and at most G + K receptions."""
    tasks = instance.shape[0]
    rows = np.zeros((tasks, *instance.shape))
    for task in range(tasks):
        rows[task, task, 0] = 1
    flat = rows.reshape(tasks, -1)
    caps = np.array([task.staleness_cap for task in instance.tasks], dtype=np.float64)
    both = np.concatenate([flat, -flat])
    least = np.full(tasks, float(instance.aggregations))
    return both, np.concatenate([least + caps, -least])


def _constraints(instance: Instance, variables: F64) -> F64:
    """Return (29b), (29c), (29h), (29m) and that aggregations complete receptions; at most 0."""
    devices = instance.devices
    found: list[F64] = []
    used_j, clocks = np.zeros(1), np.zeros((1, 1))
    for task, schedule in zip(instance.tasks, schedules_of(instance, variables), strict=True):
        spent = costs(schedule, task, devices)
        found.append(spent.period_s.sum(axis=1) / task.window_s - 1)
        ends_s = (schedule.uploaded * np.cumsum(spent.period_s, axis=1)).sum(axis=0)
        found.append((ends_s[:-1] - ends_s[1:]) / float(task.window_s.max()))
        completed = completions(schedule.received, schedule.uploaded)
        found.append(1 - completed.sum(axis=(0, 1)))
        used_j = used_j + spent.device_j.sum(axis=1)
        clocks = clocks + schedule.cpu_hz
    found.append(used_j / devices.energy_budget_j - 1)
    found.append((clocks / devices.cpu_max_hz[:, None] - 1).reshape(-1))
    return np.concatenate(found)
