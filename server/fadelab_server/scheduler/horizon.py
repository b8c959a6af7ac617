"""Plans of a device's next local periods, all its tasks together: the second level of the horizon.

If a device's power is limited to P watts on average, a watt has a price lambda. At that price every
task has a best length L of its local periods, and for each length the closed forms give the best
resources (:mod:`fadelab_server.scheduler.resources`); lambda is the least at which all tasks together
keep to P. Then the lengths that suit these resources exactly follow
(:mod:`fadelab_server.scheduler.pace`). P is what is left of the energy E_B (29c) over what is left of
the window T_QoE (29b).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fadelab_proto.local_period import LocalPlan
from fadelab_server.scheduler.pace import Demand, delay_cost, period_lengths_s
from fadelab_server.scheduler.resources import (
    Choices,
    PeriodTerms,
    Resources,
    best_choices,
    best_resources,
    resources,
)
from fadelab_server.scheduler.tensors import F64

_SLOTS = 32
_FINER = 12
_REFINEMENTS = 1
_NARROW = 1.02
"""Ratio at which prices on both sides are near enough: lengths then fit the power exactly anyway."""
_HIGHEST_PRESSURE = 1e15
_LEAST_PRICE = 1e-12
"""Below it a watt counts as free."""


@dataclass(frozen=True, slots=True)
class TaskOutlook:
    """What is known about one task on one device before a local period."""

    terms: PeriodTerms
    download_s: float
    """Predicted T_D."""
    upload_s: float
    """Predicted T_U."""
    upload_j: float
    station_cost: float
    """``chi c3 E_D``: what the download adds to the objective."""
    loss_to_gain: float
    """``F(w0) - F(wG)`` that is expected."""
    mixing: float
    """alpha."""


@dataclass(frozen=True, slots=True)
class DeviceOutlook:
    """What is left of a device's window and energy, and what all devices have in common."""

    tasks: tuple[TaskOutlook, ...]
    devices: int
    """I."""
    window_s: float
    """T_QoE."""
    left_s: float
    """Of the window."""
    left_j: float
    """Of the energy budget; infinite where there is none."""
    likely_price: float = 0.0
    """The device's price of a watt when it was planned before: where to look first."""


@dataclass(frozen=True, slots=True)
class PlannedPeriod:
    """One task's next local period."""

    plan: LocalPlan
    compute_s: float
    energy_j: float
    """Of the device: computing and sending."""
    length_s: float
    """T_L."""
    cost: float
    """What it adds to the objective, times the number of aggregations."""
    price: float = 0.0
    """lambda, that of a watt."""


def plan_device(outlook: DeviceOutlook) -> tuple[PlannedPeriod | None, ...]:
    """Return each task's next local period; None for one that fits into time or energy no more.

    The clocks of all tasks together stay within the processor's (29m): where they wish for more,
    each is limited to its part of the wish.
    """
    planned = _plan(outlook, [task.terms for task in outlook.tasks])
    wished = sum(period.plan.cpu_hz for period in planned if period is not None)
    limit_hz = max((task.terms.cpu_max_hz for task in outlook.tasks), default=0.0)
    if wished <= limit_hz:
        return planned
    limited = [
        task.terms if period is None else _limited(task.terms, limit_hz, period, planned)
        for task, period in zip(outlook.tasks, planned, strict=True)
    ]
    return _plan(outlook, limited)


def _limited(
    terms: PeriodTerms,
    limit_hz: float,
    period: PlannedPeriod,
    planned: Sequence[PlannedPeriod | None],
) -> PeriodTerms:
    wished_hz = sum(one.plan.cpu_hz for one in planned if one is not None)
    share_hz = limit_hz * period.plan.cpu_hz / wished_hz
    return replace(terms, cpu_min_hz=min(terms.cpu_min_hz, share_hz), cpu_max_hz=share_hz)


@dataclass(frozen=True, slots=True, eq=False)
class _Course:
    """One task: what each length of its periods would lead to, whatever energy counts."""

    task: TaskOutlook
    terms: PeriodTerms
    kappa: float
    """What a second of a longer period costs, drift while waiting included."""
    slot_s: F64
    """Times for waiting and computing to choose from first."""

    @classmethod
    def of(cls, outlook: DeviceOutlook, task: TaskOutlook, terms: PeriodTerms) -> "_Course | None":
        least_s = terms.cycles_per_sample * terms.steps_min / terms.cpu_max_hz
        longest_s = outlook.left_s - task.download_s - task.upload_s
        if least_s > longest_s:
            return None
        slots_s = np.geomspace(least_s * (1 + 1e-9), longest_s, _SLOTS)
        return cls(task, terms, _delay_cost(outlook, terms, task), slots_s)

    @property
    def transfer_s(self) -> float:
        return self.task.download_s + self.task.upload_s

    @property
    def later(self) -> float:
        """Return kappa without drift while waiting, which is in the cost of resources already."""
        return self.kappa - 2 * self.terms.learning * self.terms.idle_drift_per_s

    def best(self, pressure: float) -> tuple[float, Resources]:
        """Return length and resources that cost least if a watt costs so much.

        A joule then counts ``chi c2 + lambda / L``.
        """
        slot_s = self.slot_s
        for _ in range(_REFINEMENTS):
            at = int(np.argmin(self._tried(slot_s, pressure)[0]))
            around = slot_s[max(at - 1, 0)], slot_s[min(at + 1, len(slot_s) - 1)]
            slot_s = np.geomspace(*around, _FINER)
        costs, found = self._tried(slot_s, pressure)
        at = int(np.argmin(costs))
        batch, steps = int(found.batch_size[at]), int(found.steps[at])
        one = resources(self.terms, float(found.cpu_hz[at]), batch, steps, float(slot_s[at]))
        return float(slot_s[at]) + self.transfer_s, one

    def _tried(self, slot_s: F64, pressure: float) -> tuple[F64, Choices]:
        length_s = slot_s + self.transfer_s
        found = best_choices(self.terms, slot_s, self.terms.per_j + pressure / length_s)
        costs = found.cost + self.later * length_s + pressure * self.task.upload_j / length_s
        return costs, found


def _plan(outlook: DeviceOutlook, terms: Sequence[PeriodTerms]) -> tuple[PlannedPeriod | None, ...]:
    if outlook.left_s <= 0 or outlook.left_j <= 0:
        return (None,) * len(terms)
    limit_w = outlook.left_j / outlook.left_s
    every = [_Course.of(outlook, *pair) for pair in zip(outlook.tasks, terms, strict=True)]
    courses = [course for course in every if course is not None]
    # At the price where the power is just kept, best lengths may jump: try those on both sides.
    tried = [
        _fitted(courses, found, pressure, limit_w)
        for pressure, found in _around_the_limit(courses, limit_w, outlook.likely_price)
    ]
    best = min(tried, key=lambda periods: sum(cost for _, cost in periods), default=[])
    ready = iter(period for period, _ in best)
    planned = [None if course is None else next(ready) for course in every]
    return tuple(
        None if period is None or period.length_s > outlook.left_s * (1 + 1e-9) else period
        for period in planned
    )


def _fitted(
    courses: Sequence[_Course], found: Sequence[Resources], pressure: float, limit_w: float
) -> list[tuple[PlannedPeriod, float]]:
    """Return periods that keep to the power exactly, each with its cost and that of its length."""
    lengths_s = _lengths_s(courses, found, limit_w)
    # Clocks that suit the lengths that came out, and then the lengths that suit their energies.
    found = [
        best_resources(
            course.terms,
            max(length_s - course.transfer_s, one.compute_s),
            course.terms.per_j + pressure / length_s,
        )
        or one
        for course, one, length_s in zip(courses, found, lengths_s, strict=True)
    ]
    lengths_s = _lengths_s(courses, found, limit_w)
    periods = [
        replace(_planned(*parts), price=pressure)
        for parts in zip(courses, found, lengths_s, strict=True)
    ]
    return [
        (period, period.cost + course.later * period.length_s)
        for course, period in zip(courses, periods, strict=True)
    ]


def _around_the_limit(
    courses: Sequence[_Course], limit_w: float, likely: float
) -> list[tuple[float, list[Resources]]]:
    """Return the least lambda at which all tasks keep to the power, and one just below it.

    Each with what the tasks do then. If energy limits nothing, 0 alone. The search begins near a
    likely price, which is right most of the time and saves half of it.
    """

    def at(pressure: float) -> tuple[float, list[Resources]]:
        found = [course.best(pressure) for course in courses]
        used_w = sum(
            (one.compute_j + course.task.upload_j) / length_s
            for course, (length_s, one) in zip(courses, found, strict=True)
        )
        return used_w, [one for _, one in found]

    used_w, more = at(0.0)
    if used_w <= limit_w:
        return [(0.0, more)]
    low, high = 0.0, 2.0 * likely or 1e-6
    used_w, found = at(high)
    # Beyond the last of these prices energy is all that counts.
    while used_w > limit_w and high < _HIGHEST_PRESSURE:
        low, more, high = high, found, 64 * high
        used_w, found = at(high)
    step = 4.0
    while low == 0 and high > _LEAST_PRICE:
        used_w, less = at(high / step)
        if used_w > limit_w:
            low, more = high / step, less
        else:
            high, found, step = high / step, less, 16 * step
    while low > 0 and high > _NARROW * low:
        middle = float(np.sqrt(low * high))
        used_w, less = at(middle)
        if used_w <= limit_w:
            high, found = middle, less
        else:
            low, more = middle, less
    return [(high, found), (low, more)]


def _lengths_s(
    courses: Sequence[_Course], found: Sequence[Resources], limit_w: float
) -> list[float]:
    """Return the lengths of periods that given resources lead to."""
    demand = Demand(
        np.array([one.compute_j + c.task.upload_j for c, one in zip(courses, found, strict=True)]),
        np.array([c.transfer_s + one.compute_s for c, one in zip(courses, found, strict=True)]),
        np.array([course.kappa for course in courses]),
    )
    return [float(length_s) for length_s in period_lengths_s(demand, limit_w=limit_w)]


def _delay_cost(outlook: DeviceOutlook, terms: PeriodTerms, task: TaskOutlook) -> float:
    return delay_cost(
        learning=terms.learning,
        idle_drift_per_s=terms.idle_drift_per_s,
        loss_to_gain=task.loss_to_gain,
        mixing=task.mixing,
        devices=outlook.devices,
        window_s=outlook.window_s,
    )


def _planned(course: _Course, one: Resources, length_s: float) -> PlannedPeriod:
    task, terms = course.task, course.terms
    slot_s = max(length_s - course.transfer_s, one.compute_s)
    real = resources(terms, one.cpu_hz, one.batch_size, one.steps, slot_s)
    drifting = 2 * terms.learning * terms.idle_drift_per_s * course.transfer_s
    return PlannedPeriod(
        plan=LocalPlan(one.cpu_hz, one.batch_size, one.steps, slot_s - one.compute_s),
        compute_s=one.compute_s,
        energy_j=one.compute_j + task.upload_j,
        length_s=course.transfer_s + slot_s,
        cost=real.cost + drifting + terms.per_j * task.upload_j + task.station_cost,
    )
