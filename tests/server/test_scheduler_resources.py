"""Closed forms of clock, batch, steps and length against grids over all of them."""

from dataclasses import replace

import numpy as np
import pytest

from fadelab_server.scheduler.horizon import DeviceOutlook, TaskOutlook, plan_device
from fadelab_server.scheduler.pace import Demand, delay_cost, period_lengths_s
from fadelab_server.scheduler.resources import (
    PeriodTerms,
    best_batch,
    best_clock,
    best_resources,
    best_steps,
    period_cost,
)


def some_terms(seed: int, *, per_j: float | None = None) -> PeriodTerms:
    """Every term of the cost matters; drift is larger sometimes while waiting, sometimes computing."""
    rng = np.random.default_rng(seed)
    return PeriodTerms(
        learning=float(10 ** rng.uniform(-1, 2)),
        per_j=float(10 ** rng.uniform(-2, 1)) if per_j is None else per_j,
        learning_rate=0.05,
        dissimilarity=float(rng.uniform(0, 0.3)),
        smoothness=3.0,
        variability=0.7,
        data_variance=float(rng.uniform(1, 60)),
        proximal=1.0,
        regularised_gradient_sq=float(rng.uniform(0.05, 5)),
        samples=int(rng.integers(5, 30)),
        idle_drift_per_s=float(rng.uniform(0, 0.5)),
        active_drift_per_s=float(rng.uniform(0, 0.5)),
        cycles_per_sample=float(rng.uniform(500, 5000)),
        capacitance_j_s2=float(10 ** rng.uniform(-17, -15)),
        cpu_min_hz=3e3,
        cpu_max_hz=1e5,
        steps_min=1,
        steps_max=8,
    )


@pytest.mark.parametrize("seed", range(40))
def test_nothing_on_the_grid_is_cheaper(seed: int) -> None:
    terms = some_terms(seed)
    slot_s = float(np.random.default_rng(seed).uniform(0.5, 8))
    found = best_resources(terms, slot_s)
    batches, steps = np.arange(1.0, terms.samples + 1)[:, None], np.arange(1.0, 9)
    needed_hz = terms.cycles_per_sample * batches * steps / slot_s
    slowest_hz = np.clip(needed_hz, terms.cpu_min_hz, terms.cpu_max_hz)
    clocks = np.geomspace(slowest_hz, terms.cpu_max_hz, 700)
    costs = period_cost(terms, clocks, batches, steps, slot_s)
    assert found is not None
    assert found.compute_s <= slot_s * (1 + 1e-9)
    lowest = float(costs.min())
    assert found.cost <= lowest + 1e-9 * abs(lowest)
    # The grid of clocks is fine: the closed forms do not win by leaving it.
    assert found.cost == pytest.approx(lowest, rel=0.02, abs=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_each_closed_form_is_the_least_of_its_line(seed: int) -> None:
    terms = some_terms(seed)
    huge_s = 1e4
    clocks = np.geomspace(terms.cpu_min_hz, terms.cpu_max_hz, 4001)
    f = float(best_clock(terms, np.array(4.0), np.array(3.0), huge_s))
    line = period_cost(terms, clocks, np.array(4.0), np.array(3.0), huge_s)
    assert f == pytest.approx(clocks[np.argmin(line)], rel=2e-3)
    batches = np.linspace(1, terms.samples, 8001)
    line = period_cost(terms, np.array(3e4), batches, np.array(3.0), huge_s)
    assert best_batch(terms, 3e4) == pytest.approx(batches[np.argmin(line)], abs=5e-3)
    steps = np.linspace(1, 8, 8001)
    line = period_cost(terms, np.array(3e4), np.array(4.0), steps, huge_s)
    assert best_steps(terms, 3e4, 4) == pytest.approx(steps[np.argmin(line)], abs=2e-3)


def test_a_slot_that_is_too_short_has_no_plan() -> None:
    terms = some_terms(0)
    least_s = terms.cycles_per_sample / terms.cpu_max_hz
    assert best_resources(terms, 0.99 * least_s) is None
    found = best_resources(terms, 1.01 * least_s)
    assert found is not None
    assert (found.batch_size, found.steps) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"learning": -1.0},
        {"per_j": np.nan},
        {"idle_drift_per_s": -0.1},
        {"cpu_min_hz": 2e5},
        {"steps_min": 9},
        {"samples": 0},
    ],
)
def test_terms_without_an_optimum_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|cannot be|at least"):
        replace(some_terms(0), **change)


def test_more_active_drift_means_less_computing() -> None:
    terms = replace(some_terms(1, per_j=1.0), idle_drift_per_s=0.05)
    times_s = [
        best_resources(replace(terms, active_drift_per_s=drift), 5.0).compute_s  # type: ignore[union-attr]
        for drift in (0.0, 0.1, 1.0, 10.0)
    ]
    assert times_s == sorted(times_s, reverse=True)
    assert times_s[-1] < 0.5 * times_s[0]


@pytest.mark.parametrize("seed", range(20))
def test_lengths_are_the_least_cost_within_the_power(seed: int) -> None:
    rng = np.random.default_rng(seed)
    demand = Demand(rng.uniform(0.1, 3, 2), rng.uniform(0.1, 2, 2), rng.uniform(0.1, 5, 2))
    limit_w = float(rng.uniform(0.3, 4))
    found = period_lengths_s(demand, limit_w=limit_w)
    assert (found >= demand.busy_s).all()
    assert (demand.energy_j / found).sum() <= limit_w * (1 + 1e-9)
    # Every pair of lengths that spends exactly the limit, or is as short as can be.
    first_s = np.geomspace(demand.busy_s[0], 200, 20001)
    left_w = limit_w - demand.energy_j[0] / first_s
    first_s, left_w = first_s[left_w > 0], left_w[left_w > 0]
    second_s = np.maximum(demand.busy_s[1], demand.energy_j[1] / left_w)
    cost = demand.delay_cost[0] * first_s + demand.delay_cost[1] * second_s
    assert demand.delay_cost @ found == pytest.approx(cost.min(), rel=1e-3)
    assert demand.delay_cost @ found <= cost.min() * (1 + 1e-9)


def test_what_one_task_gains_the_others_wait_for() -> None:
    demand = Demand(np.array([1.0, 2.0, 0.5]), np.full(3, 0.1), np.array([1.0, 1.0, 1.0]))
    before = period_lengths_s(demand, limit_w=0.5)
    after = period_lengths_s(replace(demand, delay_cost=np.array([4.0, 1.0, 1.0])), limit_w=0.5)
    assert after[0] < before[0]
    assert (after[1:] > before[1:]).all()


def outlook(
    *, left_j: float = np.inf, tasks: int = 1, seed: int = 0, **terms: float
) -> DeviceOutlook:
    return DeviceOutlook(
        tuple(
            TaskOutlook(
                replace(some_terms(seed + number), **terms),
                download_s=0.3,
                upload_s=0.2,
                upload_j=0.05,
                station_cost=0.01,
                loss_to_gain=2.0,
                mixing=0.6,
            )
            for number in range(tasks)
        ),
        devices=4,
        window_s=100.0,
        left_s=80.0,
        left_j=left_j,
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("left_j", [1.0, 5.0, 40.0])
def test_plans_keep_to_energy_clock_and_window(seed: int, left_j: float) -> None:
    view = outlook(left_j=left_j, tasks=3, seed=seed)
    planned = [period for period in plan_device(view) if period is not None]
    assert sum(period.energy_j / period.length_s for period in planned) <= left_j / 80 * (1 + 1e-9)
    assert sum(period.plan.cpu_hz for period in planned) <= 1e5 * (1 + 1e-9)
    for period in planned:
        parts_s = 0.5 + period.compute_s + period.plan.idle_s
        assert period.length_s == pytest.approx(parts_s)
        assert period.length_s <= 80


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("left_j", [2.0, 10.0, np.inf])
def test_a_device_s_plan_against_brute_force(seed: int, left_j: float) -> None:
    """One task; grids over clock, batch, steps and length, each within the power."""
    view = outlook(left_j=left_j, seed=seed, steps_max=3, samples=6)
    task, (planned,) = view.tasks[0], plan_device(view)
    terms = task.terms
    extra = delay_cost(
        learning=terms.learning,
        idle_drift_per_s=0.0,
        loss_to_gain=2.0,
        mixing=0.6,
        devices=4,
        window_s=100.0,
    )
    clocks = np.geomspace(terms.cpu_min_hz, terms.cpu_max_hz, 400)
    batches, steps = np.arange(1.0, 7)[:, None, None], np.arange(1.0, 4)[:, None]
    cycles = terms.cycles_per_sample * batches * steps
    energy_j = terms.capacitance_j_s2 * cycles * clocks**2 + 0.05
    least_s = np.maximum(0.5 + cycles / clocks, energy_j / (left_j / 80))
    costs = period_cost(terms, clocks, batches, steps, least_s - 0.5) + extra * least_s
    lowest = float(costs[least_s <= 80].min(initial=np.inf))
    if planned is None:
        assert lowest == np.inf
        return
    args = (
        np.array(float(value))
        for value in (planned.plan.cpu_hz, planned.plan.batch_size, planned.plan.steps)
    )
    cost = float(period_cost(terms, *args, planned.length_s - 0.5)) + extra * planned.length_s
    # Where the best length jumps with the price of power, a few percent are lost.
    assert cost <= lowest * 1.05


def test_trends_of_the_paper() -> None:
    """More active drift: less computing. More idle drift: less waiting. More importance: more periods."""
    base = outlook(left_j=3.0, tasks=3, seed=30, idle_drift_per_s=0.1, active_drift_per_s=0.1)

    def plans(**change: float):  # noqa: ANN202
        first = replace(base.tasks[0], terms=replace(base.tasks[0].terms, **change))
        found = plan_device(replace(base, tasks=(first, *base.tasks[1:])))
        assert None not in found
        return found

    before = plans()
    drifting = plans(active_drift_per_s=2.0)
    assert drifting[0].compute_s < before[0].compute_s
    waiting = plans(idle_drift_per_s=1.0)
    assert waiting[0].plan.idle_s < before[0].plan.idle_s
    important = plans(learning=20 * base.tasks[0].terms.learning)
    assert important[0].plan.steps / important[0].length_s > (
        before[0].plan.steps / before[0].length_s
    )
    assert all(important[n].length_s > before[n].length_s for n in (1, 2))


def test_nothing_is_planned_when_window_or_energy_are_used_up() -> None:
    assert plan_device(replace(outlook(), left_s=0.4)) == (None,)
    assert plan_device(replace(outlook(), left_s=0.0)) == (None,)
    assert plan_device(outlook(left_j=1e-6)) == (None,)


def test_a_task_that_nothing_is_lost_by_takes_only_what_is_left() -> None:
    demand = Demand(np.array([1.0, 1.0]), np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    first_s, second_s = period_lengths_s(demand, limit_w=1.0)
    assert first_s == pytest.approx(1.0, rel=1e-4)
    assert second_s > 1e3
    idle = Demand(np.array([1.0, 1.0]), np.array([0.5, 0.5]), np.zeros(2))
    assert period_lengths_s(idle, limit_w=1.0) == pytest.approx([2.0, 2.0])
