"""The scheduler's decisions against the paper's successive convex approximation on small instances."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from tests.server.schedules import terms

pytest.importorskip("cvxpy")

from fadelab_server.scheduler.constraints import violations
from fadelab_server.scheduler.dispatch import Holder, Waiting, next_receivers, next_uploader
from fadelab_server.scheduler.objective import CostWeights, TaskWeights
from fadelab_server.scheduler.relaxed_problem import (
    Instance,
    LearningTerms,
    relaxed,
    schedules_of,
    value,
    variables_of,
)
from fadelab_server.scheduler.resources import PeriodTerms, best_resources
from fadelab_server.scheduler.schedule import TaskSchedule
from fadelab_server.scheduler.successive_convex import SmoothProblem, minimise
from fadelab_server.scheduler.tensors import completions, unmatched


def instance(seed: int, *, devices: int = 2, tasks: int = 1, aggregations: int = 2) -> Instance:
    rng = np.random.default_rng(seed)
    given, hardware = terms(rng, devices=devices, aggregations=aggregations)
    given = replace(
        given,
        window_s=np.full(devices, 60.0),
        staleness_cap=3,
        samples=np.full((devices, aggregations), 20.0),
        steps_max=5,
    )
    hardware = replace(
        hardware,
        capacitance_j_s2=10 ** rng.uniform(-15, -14, devices),
        cpu_min_hz=np.full(devices, 3e3),
        cpu_max_hz=np.full(devices, 3e5),
        rate_up_bps=np.full((devices, aggregations), 1e6),
        rate_down_bps=np.full((devices, aggregations), 5e5),
    )
    learning = LearningTerms(
        weights=TaskWeights(),
        learning_rate=0.05,
        smoothness=3.0,
        variability=0.7,
        proximal=1.0,
        regularised_gradient_sq=0.5,
        dissimilarity=rng.uniform(0, 0.5, devices),
        data_variance=rng.uniform(10, 60, devices),
        idle_drift_per_s=rng.uniform(0, 0.1, devices),
        active_drift_per_s=rng.uniform(0.1, 0.5, devices),
    )
    return Instance(
        (given,) * tasks, (learning,) * tasks, hardware, CostWeights(1.0, 1.0, 1.0), aggregations
    )


def period_terms(problem: Instance, device: int) -> PeriodTerms:
    """Nothing makes a device wait here, so a second of computing costs all its drift."""
    task, learning, hardware = problem.tasks[0], problem.learning[0], problem.devices
    return PeriodTerms(
        learning=1.0 / learning.learning_rate,
        per_j=1.0,
        learning_rate=learning.learning_rate,
        dissimilarity=float(learning.dissimilarity[device]),
        smoothness=learning.smoothness,
        variability=learning.variability,
        data_variance=float(learning.data_variance[device]),
        proximal=learning.proximal,
        regularised_gradient_sq=learning.regularised_gradient_sq,
        samples=20,
        idle_drift_per_s=0.0,
        active_drift_per_s=float(learning.active_drift_per_s[device]),
        cycles_per_sample=float(task.cycles_per_sample[device]),
        capacitance_j_s2=float(hardware.capacitance_j_s2[device]),
        cpu_min_hz=3e3,
        cpu_max_hz=3e5,
        steps_min=1,
        steps_max=5,
    )


def with_closed_forms(
    problem: Instance, received: np.ndarray, uploaded: np.ndarray
) -> TaskSchedule:
    """Resources by closed forms; then only as much waiting as keeps uploads in order."""
    devices, aggregations = received.shape
    resources = [best_resources(period_terms(problem, device), 5.0) for device in range(devices)]
    columns = {
        "cpu_hz": [one.cpu_hz for one in resources if one],
        "batch_size": [float(one.batch_size) for one in resources if one],
        "steps": [float(one.steps) for one in resources if one],
    }
    made = {name: np.tile(np.array(c)[:, None], aggregations) for name, c in columns.items()}
    idle_s = np.zeros(received.shape)
    completed = completions(received, uploaded)
    busy_s = np.array([one.compute_s for one in resources if one])
    task, hardware = problem.tasks[0], problem.devices
    down_s, up_s = task.model_bits / hardware.rate_down_bps, task.model_bits / hardware.rate_up_bps
    period_s = received * (busy_s[:, None] + down_s) + uploaded * up_s
    last_s = 0.0
    for aggregation in range(aggregations):
        device, version = (int(axis[0]) for axis in np.nonzero(completed[:, :, aggregation]))
        ends_s = float((period_s + idle_s)[device, : aggregation + 1].sum())
        idle_s[device, version] += max(0.0, last_s - ends_s)
        last_s = max(last_s, ends_s)
    total_s = (period_s + received * idle_s).sum(axis=1)
    return TaskSchedule(
        received, uploaded, **made, idle_s=idle_s, final_idle_s=task.window_s - total_s
    )


def all_schedules(devices: int, aggregations: int):  # noqa: ANN201
    """Every R and U in which each aggregation completes a reception and nobody receives twice."""
    for uploaders in itertools.product(range(devices), repeat=aggregations):
        uploaded = np.eye(devices)[list(uploaders)].T
        for bits in itertools.product((0.0, 1.0), repeat=devices * aggregations):
            received = np.array(bits).reshape(devices, aggregations)
            completed = completions(received, uploaded)
            if not len(unmatched(completed)) and (completed.sum(axis=2) == received).all():
                yield received, uploaded


def test_the_iteration_finds_a_known_optimum() -> None:
    """``min x y`` outside a circle, inside a box: both corners that touch it are stationary."""
    problem = SmoothProblem(
        objective=lambda v: v[0] ** 2 + 2 * v[1] ** 2,
        constraints=lambda v: np.array([1 - v[0] ** 2 - v[1] ** 2]),
        lower=np.zeros(2),
        upper=np.full(2, 2.0),
        equal=(np.zeros((0, 2)), np.zeros(0)),
        most=(np.zeros((0, 2)), np.zeros(0)),
    )
    found = minimise(problem, np.array([1.5, 0.7]))
    assert found.point == pytest.approx([1.0, 0.0], abs=1e-3)
    assert found.value == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(ValueError, match="start"):
        minimise(problem, np.array([0.1, 0.1]))


def test_variables_and_schedules_are_the_same_thing() -> None:
    problem = instance(0)
    schedule = with_closed_forms(problem, *next(all_schedules(2, 2)))
    (again,) = schedules_of(problem, variables_of(problem, [schedule]))
    for name in ("received", "uploaded", "cpu_hz", "batch_size", "steps", "idle_s"):
        assert getattr(again, name) == pytest.approx(getattr(schedule, name))


@pytest.mark.parametrize("seed", range(3))
def test_closed_forms_against_the_paper_s_solver_with_the_schedule_given(seed: int) -> None:
    """Rounding B and e to whole numbers is all that a general solver gains."""
    problem = instance(seed)
    schedule = with_closed_forms(problem, *next(all_schedules(2, 2)))
    assert violations([schedule], problem.tasks, problem.devices) == []
    mine = float(np.real(value(problem, [schedule])))
    start = variables_of(problem, [schedule])
    best = minimise(relaxed(problem, fixed=[schedule]), start, close=1e-4)
    assert best.value <= mine
    assert best.value == pytest.approx(mine, rel=0.03)
    # From elsewhere the same optimum is found.
    poor = replace(
        schedule,
        cpu_hz=schedule.cpu_hz * 0.7,
        batch_size=np.full((2, 2), 10.0),
        steps=np.full((2, 2), 2.0),
    )
    worse = variables_of(problem, [poor])
    again = minimise(relaxed(problem, fixed=[schedule]), worse, close=1e-4)
    assert float(np.real(value(problem, [poor]))) > 1.05 * mine
    assert again.value == pytest.approx(best.value, rel=0.01)


def dispatched(problem: Instance) -> TaskSchedule:
    """R and U by the first level, resources by the second."""
    devices, aggregations = problem.shape[2:]
    task, learning, hardware = problem.tasks[0], problem.learning[0], problem.devices
    transfer_s = task.model_bits / hardware.rate_up_bps[:, 0]
    transfer_s = transfer_s + task.model_bits / hardware.rate_down_bps[:, 0]
    costs = 2 / learning.learning_rate * learning.idle_drift_per_s * transfer_s
    for device in range(devices):
        one = best_resources(period_terms(problem, device), 5.0)
        assert one is not None
        costs[device] += one.cost
    received, uploaded = np.zeros((2, devices, aggregations))
    holding: dict[int, int] = {}
    for newest in range(aggregations):
        holders = [Holder(d, version, 0.0, costs[d]) for d, version in holding.items()]
        waiting = [Waiting(d, 0.0, costs[d]) for d in range(devices) if d not in holding]
        # One after the other: every reception is completed before the window ends.
        for d in next_receivers(waiting, holders, newest=newest, cap=0, now_s=0.0):
            received[d, newest], holding[d] = 1, newest
        holders = [Holder(d, version, 0.0, costs[d]) for d, version in holding.items()]
        chosen = next_uploader(holders, newest=newest, cap=0)
        assert chosen is not None
        uploaded[chosen.device, newest] = 1
        del holding[chosen.device]
    return with_closed_forms(problem, received, uploaded)


@pytest.mark.parametrize("seed", range(3))
def test_the_scheduler_against_all_schedules_and_the_relaxed_optimum(seed: int) -> None:
    problem = instance(seed, devices=2, aggregations=3)
    mine = dispatched(problem)
    assert violations([mine], problem.tasks, problem.devices) == []
    every = [with_closed_forms(problem, *pair) for pair in all_schedules(2, 3)]
    feasible = [one for one in every if not violations([one], problem.tasks, problem.devices)]
    values = sorted(float(np.real(value(problem, [one]))) for one in feasible)
    reached = float(np.real(value(problem, [mine])))
    assert len(values) > 5
    # Nothing waits for anything here, so the cheapest uploader each time is the best schedule.
    assert reached == pytest.approx(values[0], rel=1e-9)
    # All receive everything and upload half of it: between 0 and 1, as far from any schedule as can be.
    between = replace(mine, received=np.ones((2, 3)), uploaded=np.full((2, 3), 0.5))
    optima = [
        minimise(relaxed(problem), variables_of(problem, [one]), iterations=60, close=1e-3).value
        for one in (mine, between)
    ]
    assert min(optima) <= reached
    assert reached <= 1.3 * min(optima)
