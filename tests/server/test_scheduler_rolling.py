"""Both levels together over a whole run, with formulas in the place of radio and processors."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from fadelab_server.scheduler.dispatch import Holder, Waiting, next_receivers, next_uploader
from fadelab_server.scheduler.event_log import Event, Received, TaskLog, Uploaded
from fadelab_server.scheduler.horizon import DeviceOutlook, PlannedPeriod, TaskOutlook, plan_device
from fadelab_server.scheduler.resources import PeriodTerms
from fadelab_server.scheduler.tensors import completions, staleness

DEVICES, TASKS, WINDOW_S, CAP = 3, 2, 12.0, 2


def terms(device: int, task: int) -> PeriodTerms:
    rng = np.random.default_rng([device, task])
    return PeriodTerms(
        learning=2.0,
        per_j=0.1,
        learning_rate=0.05,
        dissimilarity=float(rng.uniform(0, 0.3)),
        smoothness=3.0,
        variability=0.7,
        data_variance=30.0,
        proximal=1.0,
        regularised_gradient_sq=0.1,
        samples=20,
        idle_drift_per_s=0.05,
        active_drift_per_s=0.1,
        cycles_per_sample=float(rng.uniform(500, 5000)),
        capacitance_j_s2=1e-15,
        cpu_min_hz=3e3,
        cpu_max_hz=1e5,
        steps_min=1,
        steps_max=8,
    )


@dataclass
class Run:
    """What happens, moment after moment."""

    importance: tuple[float, ...] = (1.0,) * TASKS
    budget_j: float = 1.0
    now_s: float = 0.0
    spent_j: np.ndarray = field(default_factory=lambda: np.zeros((DEVICES, TASKS)))
    steps: np.ndarray = field(default_factory=lambda: np.zeros(TASKS))
    events: list[list[Event]] = field(default_factory=lambda: [[] for _ in range(TASKS)])
    planned: dict[tuple[int, int], tuple[float, PlannedPeriod]] = field(default_factory=dict)
    """By device and task: when the period began, and what it is to be."""
    holding: dict[tuple[int, int], int] = field(default_factory=dict)

    def outlook(self, device: int) -> DeviceOutlook:
        tasks = tuple(
            TaskOutlook(
                replace(terms(device, task), learning=2.0 * self.importance[task]),
                download_s=0.3,
                upload_s=0.2,
                upload_j=0.05,
                station_cost=0.01,
                loss_to_gain=2.0,
                mixing=0.6,
            )
            for task in range(TASKS)
        )
        committed_j = sum(p.energy_j for (i, _), (_, p) in self.planned.items() if i == device)
        left_j = self.budget_j - float(self.spent_j[device].sum()) - committed_j
        return DeviceOutlook(tasks, DEVICES, WINDOW_S, WINDOW_S - self.now_s, left_j)

    def versions(self, task: int) -> int:
        return sum(isinstance(event, Uploaded) for event in self.events[task])

    def plan(self) -> None:
        for device in range(DEVICES):
            for task in range(TASKS):
                if (device, task) not in self.planned:
                    period = plan_device(self.outlook(device))[task]
                    if period is not None:
                        self.planned[device, task] = self.now_s, period

    def holders(self, task: int) -> list[Holder]:
        found = []
        for (device, other), version in self.holding.items():
            if other == task:
                begun_s, period = self.planned[device, task]
                ready_in_s = max(0.0, begun_s + period.length_s - self.now_s)
                found.append(Holder(device, version, ready_in_s, period.cost))
        return found

    def dispatch(self, task: int) -> None:
        waiting = [
            Waiting(device, begun_s + period.plan.idle_s, period.cost)
            for (device, other), (begun_s, period) in self.planned.items()
            if other == task and (device, task) not in self.holding
        ]
        newest = self.versions(task)
        for device in next_receivers(
            waiting, self.holders(task), newest=newest, cap=CAP, now_s=self.now_s
        ):
            # Who had to wait longer than planned begins as much later.
            _, period = self.planned[device, task]
            self.planned[device, task] = self.now_s - period.plan.idle_s, period
            self.holding[device, task] = newest
            self.events[task].append(Received(device, newest, self.now_s))
        while (
            chosen := next_uploader(self.holders(task), newest=self.versions(task), cap=CAP)
        ) is not None:
            version = self.holding.pop((chosen.device, task))
            _, period = self.planned.pop((chosen.device, task))
            self.spent_j[chosen.device, task] += period.energy_j
            self.steps[task] += period.plan.steps
            upload = Uploaded(chosen.device, version, self.versions(task), 0.6, self.now_s)
            self.events[task].append(upload)

    def to_the_end(self) -> "Run":
        while self.now_s < WINDOW_S:
            self.plan()
            for task in range(TASKS):
                self.dispatch(task)
            moments = [
                moment_s
                for begun_s, period in self.planned.values()
                for moment_s in (begun_s + period.plan.idle_s, begun_s + period.length_s)
                if moment_s > self.now_s + 1e-9
            ]
            self.now_s = min([*moments, WINDOW_S])
        return self


@pytest.fixture(scope="module", name="even")
def even_run() -> Run:
    return Run().to_the_end()


def test_staleness_and_energy_stay_within_their_limits(even: Run) -> None:
    for events in even.events:
        log = TaskLog(DEVICES, tuple(events))
        assert len(log.uploads) > 5
        assert staleness(completions(*log.tensors())) <= CAP
    assert (even.spent_j.sum(axis=1) <= even.budget_j).all()
    # What is there is used: the limit is the energy, not the scheduler.
    assert (even.spent_j.sum(axis=1) > 0.5 * even.budget_j).all()


@pytest.mark.parametrize("likely", [1e-9, 1.0, 400.0, 1e6])
@pytest.mark.parametrize("budget_j", [0.1, 0.5, 5.0])
def test_where_the_search_for_a_price_begins_changes_little(likely: float, budget_j: float) -> None:
    outlook = Run(budget_j=budget_j).outlook(0)
    plain = plan_device(outlook)
    for one, other in zip(plain, plan_device(replace(outlook, likely_price=likely)), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert other.length_s == pytest.approx(one.length_s, rel=0.05)
            assert other.cost == pytest.approx(one.cost, rel=0.05)


def test_importance_moves_aggregations_steps_and_energy(even: Run) -> None:
    first = Run(importance=(30.0, 1.0)).to_the_end()
    assert first.versions(0) > even.versions(0)
    assert first.versions(1) < even.versions(1)
    assert first.steps[0] / first.steps.sum() > even.steps[0] / even.steps.sum()
    share = first.spent_j.sum(axis=0) / first.spent_j.sum()
    assert share[0] > (even.spent_j.sum(axis=0) / even.spent_j.sum())[0]


def test_a_smaller_budget_means_fewer_aggregations(even: Run) -> None:
    poor = Run(budget_j=0.4).to_the_end()
    assert sum(map(poor.versions, range(TASKS))) < sum(map(even.versions, range(TASKS)))
    assert (poor.spent_j.sum(axis=1) <= 0.4).all()
