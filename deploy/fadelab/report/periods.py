"""Local periods of tasks and devices: how long, how much, and for which energy."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from fadelab.report.markup import Cell, Markup, card, join, table, tag
from fadelab.report.model import Run
from fadelab.report.style import DOWN, GREEN, UP, WIDTH_IN, legend_above, render
from fadelab.report.units import NONE, number, plural, short_name
from fadelab.results.period_schema import PeriodFigures, PeriodJoules, Periods, TaskPeriods

_ROWS = 120
_PARTS = {"compute": GREEN, "uplink": UP, "downlink": DOWN}
_FIGURE_HEADINGS = (
    "ended",
    "idle (s)",
    "downlink (s)",
    "compute (s)",
    "uplink (s)",
    "steps",
    "batch",
    "clock (MHz)",
    "overruns",
)
_ENERGY_HEADINGS = (
    "task",
    *(f"{part}, {kind}" for part in _PARTS for kind in ("modelled", "metered")),
    "all, modelled",
    "all, metered",
    "metered / modelled",
)


def periods(run: Run) -> Markup:
    """Show the local periods; nothing where devices report none."""
    found = run.summary.periods
    return Markup() if found is None else join(_periods(found), _energy(found))


def _periods(found: Periods) -> Markup:
    by_task = [
        [Cell(name), *_planned(task), *_figures(task.periods)] for name, task in found.tasks.items()
    ]
    by_device = [
        [Cell(str(one.device), one.device), Cell(name), *_figures(one.periods)]
        for name, task in found.tasks.items()
        for one in task.devices
    ]
    overruns = (
        f"{number(found.overruns)} of {plural(found.trainings, 'training')} really took longer "
        "than emulated."
    )
    return card(
        "Local periods",
        tag("p", overruns, class_="fact"),
        join(
            table(
                (
                    "task",
                    "staleness",
                    "cap",
                    "over cap",
                    "planned",
                    "planned idle (s)",
                    *_FIGURE_HEADINGS,
                ),
                by_task,
                limit=_ROWS,
            ),
            table(("device", "task", *_FIGURE_HEADINGS), by_device, limit=_ROWS),
        ),
        caption="Means over the periods that ended. Idle: waiting for a version and for the turn to "
        "upload. Idle, downlink and uplink as measured, compute as emulated (20); planned idle is "
        "what the server decided before a period. Overruns: trainings that really took longer than "
        "emulated. Staleness: the largest of applied updates, in versions.",
    )


def _energy(found: Periods) -> Markup:
    rows = [
        _joules(name, task.periods.modelled, task.periods.metered)
        for name, task in found.tasks.items()
    ]
    chart = render(
        "period-energy",
        "Energy of every task, modelled and metered",
        0.1 * WIDTH_IN + 0.5 * len(found.tasks),
        lambda figure: _draw(figure, found.tasks),
    )
    foot = _joules("all", found.modelled, found.metered)
    return card(
        "Energy of local periods",
        join(chart, table(_ENERGY_HEADINGS, rows, foot=foot, limit=_ROWS)),
        caption="Joules of all devices. Modelled: formulas alone, emulated computing (21) and the bits of models over the "
        "programmed rate (23) (25), as if each task had the link to itself. Metered: the same powers "
        "times measured times. The two are separate accounts. Metered transfers are longer where "
        "tasks share a link, and by headers, acknowledgements and what TCP does.",
    )


def _draw(figure: Figure, tasks: Mapping[str, TaskPeriods]) -> None:
    axes = figure.subplots()
    lanes = np.arange(len(tasks))
    for shift, kind, hatch in ((-0.2, "modelled", "////"), (0.2, "metered", "")):
        left = np.zeros(len(tasks))
        for part, colour in _PARTS.items():
            joules = [getattr(getattr(task.periods, kind), part) for task in tasks.values()]
            axes.barh(
                lanes + shift,
                joules,
                left=left,
                height=0.36,
                color=colour,
                label=f"{part}, {kind}",
                hatch=hatch,
                edgecolor="white",
                linewidth=0.3,
            )
            left += np.array(joules)
    axes.set_yticks(lanes, [short_name(name) for name in tasks])
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    axes.set_xlabel("energy of all devices (J)")
    axes.grid(visible=False, axis="y")
    legend_above(figure, axes)


def _planned(task: TaskPeriods) -> list[Cell]:
    return [
        _cell(task.largest_staleness),
        _cell(task.staleness_cap),
        Cell(number(task.over_cap), task.over_cap, is_bad=task.over_cap > 0),
        Cell(number(task.scheduled), task.scheduled),
        _cell(task.mean_planned_idle_s),
    ]


def _figures(own: PeriodFigures) -> list[Cell]:
    clock_hz = own.mean_cpu_hz
    return [
        Cell(number(own.ended), own.ended),
        *(
            _cell(value)
            for value in (
                own.mean_idle_s,
                own.mean_downlink_s,
                own.mean_compute_s,
                own.mean_uplink_s,
                own.mean_steps,
                own.mean_batch,
                None if clock_hz is None else clock_hz / 1e6,
            )
        ),
        Cell(number(own.overruns), own.overruns, is_bad=own.overruns > 0),
    ]


def _joules(name: str, modelled: PeriodJoules, metered: PeriodJoules) -> list[Cell]:
    sums = [sum(getattr(kind, part) for part in _PARTS) for kind in (modelled, metered)]
    parts = [getattr(kind, part) for part in _PARTS for kind in (modelled, metered)]
    ratio = sums[1] / sums[0] if sums[0] else None
    return [Cell(name), *(_cell(value) for value in [*parts, *sums, ratio])]


def _cell(value: float | None) -> Cell:
    return Cell(NONE, float("-inf")) if value is None else Cell(number(value), value)
