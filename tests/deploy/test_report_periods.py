"""The report's sections on local periods, of synthetic runs of every size."""

import re
from dataclasses import replace

import numpy as np
import pytest
from report_outline import Outline, text_of
from report_runs import change, make_run, make_task

from fadelab.report.bound import bound
from fadelab.report.learning import learning
from fadelab.report.model import PeriodTimeline, Run
from fadelab.report.periods import periods
from fadelab.report.stages import stages
from fadelab.report.staleness import staleness
from fadelab.report.write import build_page
from fadelab.results.period_schema import (
    BoundPoint,
    DevicePeriods,
    PeriodFigures,
    PeriodJoules,
    Periods,
    TaskPeriods,
)
from fadelab.results.schema import Staleness
from fadelab.results.stages import STAGES, Stage

DEVICES, TASKS = 3, ("digits", "letters")


def joules(factor: float) -> PeriodJoules:
    return PeriodJoules(compute=4 * factor, uplink=0.5 * factor, downlink=0.25 * factor)


def figures(ended: int = 5, *, overruns: int = 0) -> PeriodFigures:
    mean = 1.5 if ended else None
    return PeriodFigures(
        ended=ended,
        mean_idle_s=mean,
        mean_downlink_s=mean,
        mean_compute_s=mean,
        mean_uplink_s=mean,
        mean_steps=mean,
        mean_batch=mean,
        mean_cpu_hz=mean,
        downlink_bits=1e6 * ended,
        uplink_bits=1e6 * ended,
        modelled=joules(1.0 if ended else 0.0),
        metered=joules(1.25 if ended else 0.0),
        overruns=overruns,
        late_s=0.5 * overruns,
    )


def task(ended: int = 5, *, over_cap: int = 0, overruns: int = 0) -> TaskPeriods:
    return TaskPeriods(
        periods=figures(ended, overruns=overruns),
        scheduled=ended,
        mean_planned_idle_s=0.5 if ended else None,
        staleness_cap=5,
        largest_staleness=4 if ended else None,
        over_cap=over_cap,
        devices=[DevicePeriods(device=device, periods=figures(ended)) for device in range(DEVICES)],
        bound=None,
    )


def with_periods(run: Run, **tasks: TaskPeriods) -> Run:
    overruns = sum(one.periods.overruns for one in tasks.values())
    found = Periods(
        tasks=tasks, modelled=joules(2.0), metered=joules(2.5), overruns=overruns, trainings=10
    )
    return change(run, periods=found)


def timeline(devices: int, rounds: int) -> list[Stage]:
    length_s = 60.0 / rounds
    return [
        Stage(device, name, stage, start_s, start_s + length_s / 4)
        for device in range(devices)
        for name in TASKS
        for turn in range(rounds)
        for start_s, stage in zip(
            np.linspace(turn * length_s, (turn + 1) * length_s, 5), STAGES, strict=False
        )
    ]


def point(t_s: float, **terms: float | None) -> BoundPoint:
    usual: dict[str, float | None] = dict.fromkeys(
        ("a", "b", "c", "d", "e", "f", "total"), 1.0 + t_s
    )
    return BoundPoint.model_validate({"t_s": t_s, "version": int(t_s)} | usual | terms)


def test_other_methods_have_none_of_these_sections() -> None:
    run = make_run(1)
    assert (periods(run), stages(run), bound(run)) == ("", "", "")


def test_periods_and_energies_are_listed_by_task_and_device() -> None:
    section = periods(with_periods(make_run(DEVICES), digits=task(), letters=task(0)))
    visible = text_of(section)
    assert section.count("<svg") == 1
    assert section.count("<tr>") == (1 + 2) + (1 + 2 * DEVICES) + (1 + 2 + 1)
    assert "0 of 10 trainings" in visible
    assert not re.search(r"\b(nan|None|inf)\b", visible)
    # 4.75 J times 1.25 over 4.75 J.
    assert "1.25" in visible
    assert 'class="num bad"' not in section


def test_overruns_and_updates_over_the_cap_are_marked() -> None:
    for broken in (task(over_cap=2), task(overruns=1)):
        assert 'class="num bad"' in periods(with_periods(make_run(1), digits=broken))


@pytest.mark.parametrize(("devices", "rounds", "is_raster"), [(2, 4, False), (100, 5, True), (200, 1, False)])  # fmt: skip
def test_the_timeline_has_a_lane_for_each_task_of_each_device(
    devices: int, rounds: int, is_raster: bool
) -> None:
    found = timeline(devices, rounds)
    run = replace(make_run(2), timeline=PeriodTimeline(stages=found))
    section = stages(run)
    visible = text_of(section)
    assert ("<image" in section) == is_raster
    assert len(section) < 400_000
    for name in STAGES:
        assert name in visible
    assert ("0 digits" in visible) == (devices == 2)
    assert ("100 more lanes are not drawn" in visible) == (devices == 200)


def test_the_bound_is_drawn_term_by_term_where_it_can_be() -> None:
    history = {
        "digits": [point(1.0), point(2.0, a=-0.5, e=None, total=None)],
        "letters": [point(1.0, a=-1.0, b=0, c=0, d=0, e=None, f=0, total=None)],
        "tracks": [],
    }
    run = replace(make_run(1), timeline=PeriodTimeline(bounds=history))
    section = bound(run)
    visible = text_of(section)
    assert section.count("<tr>") == 1 + 2
    assert "(f) concept drift" in visible
    assert "tracks" not in visible
    assert not re.search(r"\b(nan|None|inf)\b", visible)


def test_staleness_is_told_by_task_where_there_are_several() -> None:
    late = make_task(0).model_copy(
        update={"staleness": Staleness(versions=[1, 5], seconds=[0.5, 2.5])}
    )
    run = change(make_run(2), tasks={"digits": late, "letters": make_task(0)})
    section = staleness(run)
    assert section.count("<tr>") == 1 + 2
    assert "<table" not in staleness(make_run(2))


def test_learning_is_drawn_against_energy_where_it_is_known() -> None:
    known = make_task(10**6)
    costs = [point.model_copy(update={"energy_j": 0.5 * point.version}) for point in known.curve]
    run = change(make_run(1), tasks={"digits": known.model_copy(update={"curve": costs})})
    assert "energy of all devices (J)" in learning(run)
    assert "energy of all devices (J)" not in learning(make_run(1))


def test_a_whole_page_with_periods_is_sound() -> None:
    run = with_periods(make_run(DEVICES), digits=task(), letters=task(over_cap=1))
    run = change(run, tasks={name: make_task(10**6) for name in TASKS})
    whole = PeriodTimeline(timeline(DEVICES, 6), {"digits": [point(1.0), point(2.0)]})
    page = build_page(replace(run, timeline=whole))
    outline = Outline(page)
    identifiers = [value for _, name, value in outline.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert not re.search(r"\b(nan|None|inf)\b", outline.visible)
    assert "of all tasks together" in outline.visible
