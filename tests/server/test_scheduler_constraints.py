"""Times and energies (20) to (28) by hand and by loops; every constraint (29b) to (29r) can fail."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tests.server.schedules import F64, ordered_schedule, random_log, terms

from fadelab_proto.local_period import LocalPlan, shannon_rate_bps
from fadelab_server.scheduler.constraints import Drifting, rect_functions, violations
from fadelab_server.scheduler.objective import CostWeights, TaskWeights, objective
from fadelab_server.scheduler.schedule import (
    DeviceTerms,
    TaskSchedule,
    TaskTerms,
    costs,
    phases,
    upload_ends_s,
)

Case = tuple[TaskSchedule, TaskTerms, DeviceTerms]


def scene(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    log = random_log(rng, devices=3, aggregations=6)
    task, devices = terms(rng, devices=3, aggregations=6)
    return ordered_schedule(rng, log, task, devices), task, devices


@pytest.mark.parametrize("seed", range(4))
def test_times_and_energies_period_by_period(seed: int) -> None:
    schedule, task, devices = scene(seed)
    spent = costs(schedule, task, devices)
    for i, g in np.ndindex(3, 6):
        cycles = task.cycles_per_sample[i] * schedule.steps[i, g] * schedule.batch_size[i, g]
        f, r, u = schedule.cpu_hz[i, g], schedule.received[i, g], schedule.uploaded[i, g]
        compute_s = r * cycles / f
        up_s = u * task.model_bits / devices.rate_up_bps[i, g]
        down_s = r * task.model_bits / devices.rate_down_bps[i, g]
        assert spent.compute_s[i, g] == pytest.approx(compute_s)
        assert spent.upload_s[i, g] == pytest.approx(up_s)
        assert spent.download_s[i, g] == pytest.approx(down_s)
        idle_s = r * schedule.idle_s[i, g]
        assert spent.period_s[i, g] == pytest.approx(idle_s + compute_s + up_s + down_s)
        assert spent.compute_j[i, g] == pytest.approx(
            r * devices.capacitance_j_s2[i] * cycles * f**2
        )
        assert spent.upload_j[i, g] == pytest.approx(0.25 * up_s)
        assert spent.download_j[i, g] == pytest.approx(0.1 * down_s)


def test_rate_by_hand() -> None:
    # SNR 3 on 1 MHz: two bits per second and hertz.
    rate = shannon_rate_bps(bandwidth_hz=1e6, power_w=0.25, gain=1.2e-8, noise_w_hz=1e-15)
    assert rate == pytest.approx(2e6)


def test_plans_that_nobody_can_carry_out_are_refused() -> None:
    LocalPlan(cpu_hz=1e6, batch_size=1, steps=1, idle_s=0.0)
    with pytest.raises(ValueError, match="clock"):
        LocalPlan(cpu_hz=0.0, batch_size=1, steps=1, idle_s=0.0)
    with pytest.raises(ValueError, match="step"):
        LocalPlan(cpu_hz=1e6, batch_size=1, steps=0, idle_s=0.0)


@pytest.mark.parametrize("seed", range(8))
def test_phases_follow_one_another_and_uploads_end_in_order(seed: int) -> None:
    schedule, task, devices = scene(seed)
    spent = costs(schedule, task, devices)
    parts = phases(schedule, spent)
    ends_s = upload_ends_s(schedule, spent)
    assert len(parts.device) == 6
    assert (np.diff(ends_s) > 0).all()
    # The end of a period is found from both sides: phase by phase, and by adding up periods.
    assert parts.upload_to_s == pytest.approx(ends_s[parts.aggregation])
    for device in range(3):
        own = np.flatnonzero(parts.device == device)
        own = own[np.argsort(parts.aggregation[own])]
        assert parts.idle_from_s[own[1:]] == pytest.approx(parts.upload_to_s[own[:-1]])


@pytest.mark.parametrize("seed", range(8))
def test_random_ordered_schedules_are_feasible(seed: int) -> None:
    schedule, task, devices = scene(seed)
    parts = phases(schedule, costs(schedule, task, devices))
    rects = rect_functions(parts, np.linspace(0, float(parts.upload_to_s.max()), 57))
    assert violations([schedule], [task], devices, rects=[rects]) == []


def test_rect_functions_integrate_to_the_phases() -> None:
    schedule, task, devices = scene(1)
    spent = costs(schedule, task, devices)
    parts = phases(schedule, spent)
    end_s = float(parts.upload_to_s.max()) + 1
    times_s = np.linspace(0, end_s, 20001)
    rects = rect_functions(parts, times_s)
    step_s = times_s[1] - times_s[0]
    here = parts.device, parts.version
    assert rects.active.sum(axis=1) * step_s == pytest.approx(spent.compute_s[here], abs=2 * step_s)
    waiting_s = schedule.idle_s[here] + spent.download_s[here]
    waiting_s = waiting_s + spent.upload_s[parts.device, parts.aggregation]
    assert rects.idle.sum(axis=1) * step_s == pytest.approx(waiting_s, abs=4 * step_s)


def changed(array: F64, value: float, at: tuple[int, ...]) -> F64:
    copy = array.copy()
    copy[at] = value
    return copy


def with_window(case: Case) -> Case:
    return case[0], replace(case[1], window_s=case[1].window_s * 1.01), case[2]


def with_final_idle(case: Case) -> Case:
    schedule = replace(case[0], final_idle_s=changed(case[0].final_idle_s, -1.0, (0,)))
    return schedule, case[1], case[2]


def with_budget(case: Case) -> Case:
    return case[0], case[1], replace(case[2], energy_budget_j=np.full(3, 1e-9))


def with_clock(value: float) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        clocks = changed(case[0].cpu_hz, value, (0, 0))
        return replace(case[0], cpu_hz=clocks), case[1], case[2]

    return change


def with_entry(name: str, value: float) -> Callable[[Case], Case]:
    def change(case: Case) -> Case:
        array = getattr(case[0], name)
        return replace(case[0], **{name: changed(array, value, (0, 2))}), case[1], case[2]

    return change


def without_receptions(case: Case) -> Case:
    schedule = replace(case[0], received=np.zeros((3, 6)), idle_s=np.zeros((3, 6)))
    return schedule, case[1], case[2]


def with_two_uploads(case: Case) -> Case:
    return replace(case[0], uploaded=changed(case[0].uploaded, 1.0, (slice(None), 3))), *case[1:]


def out_of_order(case: Case) -> Case:
    last = np.argmax(case[0].uploaded[:, 5])
    first = np.flatnonzero(case[0].received[last])[-1]
    return replace(case[0], idle_s=changed(case[0].idle_s, -1e4, (int(last), int(first)))), *case[
        1:
    ]


def waiting_for_nothing(case: Case) -> Case:
    nothing = np.argwhere(case[0].received == 0)[0]
    return replace(case[0], idle_s=changed(case[0].idle_s, 1.0, tuple(nothing))), *case[1:]


def staler(case: Case) -> Case:
    return case[0], replace(case[1], staleness_cap=-1), case[2]


@pytest.mark.parametrize(
    ("constraint", "spoil"),
    [
        ("29b", with_window),
        ("29c", with_budget),
        ("29d", without_receptions),
        ("29d", staler),
        ("29e", with_two_uploads),
        ("29f", with_two_uploads),
        ("29g", waiting_for_nothing),
        ("29h", out_of_order),
        ("29m", with_clock(1e8)),
        ("29m", with_clock(1.0)),
        ("29n", with_entry("steps", 21.0)),
        ("29n", with_entry("steps", 0.0)),
        ("29o", with_entry("batch_size", 91.0)),
        ("29o", with_entry("batch_size", 0.5)),
        ("29p", out_of_order),
        ("29q", with_final_idle),
        ("29r", with_entry("received", 0.5)),
        ("matched", without_receptions),
        ("staleness", staler),
    ],
)
def test_every_constraint_is_missed_by_what_breaks_it(
    constraint: str, spoil: Callable[[Case], Case]
) -> None:
    schedule, task, devices = spoil(scene(3))
    names = {found.constraint for found in violations([schedule], [task], devices)}
    assert constraint in names


@pytest.mark.parametrize(
    ("constraint", "rect", "value"),
    [("29i", "idle", 1.0), ("29j", "idle", 0.0), ("29k", "active", 1.0), ("29l", "active", 0.0)],
)
def test_rect_functions_that_say_something_else_are_noticed(
    constraint: str, rect: str, value: float
) -> None:
    schedule, task, devices = scene(3)
    parts = phases(schedule, costs(schedule, task, devices))
    rects = rect_functions(parts, np.linspace(0, float(parts.upload_to_s.max()) + 1, 400))
    wrong: Drifting = replace(rects, **{rect: np.full_like(rects.idle, value)})
    names = {f.constraint for f in violations([schedule], [task], devices, rects=[wrong])}
    assert names == {constraint}


def test_the_energy_of_all_tasks_counts_against_one_budget() -> None:
    schedule, task, devices = scene(2)
    used_j = costs(schedule, task, devices).device_j.sum(axis=1)
    enough = replace(devices, energy_budget_j=1.5 * used_j, cpu_max_hz=np.full(3, 2e7))
    assert violations([schedule], [task], enough) == []
    both = violations([schedule, schedule], [task, task], enough)
    assert [found.constraint for found in both] == ["29c"]


def test_objective_by_hand() -> None:
    schedule, task, devices = scene(0)
    spent = costs(schedule, task, devices)
    weights = CostWeights(learning=0.5, device_j=2.0, station_j=3.0)
    energy = 2 * (spent.upload_j + spent.compute_j).sum() + 3 * spent.download_j.sum()
    value = objective(
        weights,
        [TaskWeights(4.0, 5.0), TaskWeights(0.0, 1.0)],
        [7.0, 100.0],
        [spent, spent],
    )
    assert value == pytest.approx(0.5 * 4 * 7 + (5 + 1) * energy / 6)
