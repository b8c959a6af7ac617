"""How fast links reopened, agents started and ticks were carried out."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fadelab.report.markup import Markup, card, empty, figure, join, tag
from fadelab.report.model import Run
from fadelab.report.style import BLUE, GREEN, GREY, INK, VERMILION, WIDTH_IN, note, render
from fadelab.report.units import number, plural, spread


def resume(run: Run) -> Markup:
    """Draw how long after the reopening of a window the first frame arrived."""
    title = "Resume time after a contact window reopened"
    times_ms = sorted(time for device in run.devices.values() for time in device.resume_ms)
    if not times_ms:
        return card(title, empty("No window reopened while an uplink was waiting."))

    chart = render(
        "resume",
        "Histogram and cumulative share of resume times",
        0.26 * WIDTH_IN,
        lambda chart: _draw_resume(chart, times_ms, run.summary.total.resume_p95_ms),
    )
    return card(
        title,
        chart,
        caption="For every reopened window with an uplink waiting in mid-transfer: milliseconds "
        "from the reopening until the first frame arrived at the server's side of the link. "
        f"{spread(times_ms, 'ms')}.",
    )


def _draw_resume(figure: Figure, times_ms: list[float], p95_ms: float | None) -> None:
    left, right = figure.subplots(1, 2)
    left.hist(times_ms, bins=30, range=(0, max(times_ms)), color=BLUE, alpha=0.85)
    left.set_ylabel("windows")
    left.yaxis.get_major_locator().set_params(integer=True)
    right.ecdf(times_ms, color=BLUE)
    right.set_ylabel("share of windows resumed")
    for axes in (left, right):
        axes.set_xlabel("resume time (ms)")
        axes.set_xlim(left=0)
        if p95_ms is not None:
            axes.axvline(p95_ms, color=VERMILION, linestyle="--", linewidth=1)
    if p95_ms is not None:
        left.set_title(f"dashed: p95 {number(p95_ms, 'ms')}")


def start_up(run: Run) -> Markup:
    """Draw the start-up and memory of the agents; list the lateness of the ticks."""
    chart = render(
        "startup",
        "Agents joined against wall time, and private memory per agent",
        0.26 * WIDTH_IN,
        lambda chart: _draw_start_up(chart, run),
    )
    start, lateness = run.summary.start_up, run.summary.lateness
    facts = [
        figure("All links exist", number(start.links_s, "s")),
        figure("Agents forked", number(start.agents_forked_s, "s")),
        figure("All agents joined", number(start.all_joined_s, "s")),
        figure("Private memory", number(start.median_private_memory_mib, "MiB"), "median agent"),
        figure(
            "Tick lateness p99",
            number(lateness.p99_ms, "ms"),
            f"median {number(lateness.p50_ms, 'ms')}, max {number(lateness.max_ms, 'ms')}, "
            f"{plural(lateness.ticks, 'tick')}",
        ),
    ]
    return card(
        "Start-up, memory and tick lateness",
        join(chart, tag("div", *facts, class_="figures")),
        caption="Start-up times are wall seconds since the command was given. Private memory: "
        "pages that an agent does not share with its siblings, which were forked from one parent. "
        "Lateness: wall time between the moment a tick was due and the moment its link states had "
        "reached the kernel.",
    )


def _draw_start_up(figure: Figure, run: Run) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    joins_s = [device.join_s for device in run.devices.values() if device.join_s is not None]
    _draw_milestones(left, run)
    if joins_s:
        ends = np.array([0.0, *np.sort(joins_s)])
        left.step(ends, np.arange(len(ends)), where="post", color=BLUE)
    left.set_ylim(0, 1.32 * max(1, len(run.devices)))
    left.set_yticks(_ticks(len(run.devices)))
    left.set_xlabel("wall time since the command (s)")
    left.set_ylabel("agents joined")
    memory = [
        device.private_memory_mib
        for device in run.devices.values()
        if device.private_memory_mib is not None
    ]
    if not memory:
        note(right, "Memory was not measured.")
        return
    right.hist(memory, bins=20, color=GREEN, alpha=0.85)
    right.yaxis.get_major_locator().set_params(integer=True)
    right.set_xlabel("private memory (MiB)")
    right.set_ylabel("agents")


def _ticks(devices: int) -> list[int]:
    return sorted({0, round(devices / 2), devices})


def _draw_milestones(axes: Axes, run: Run) -> None:
    start = run.summary.start_up
    milestones = [
        ("links", start.links_s),
        ("forked", start.agents_forked_s),
        ("all joined", start.all_joined_s),
    ]
    last_s = max(0.001, *(value for _, value in milestones))
    axes.set_xlim(0, 1.18 * last_s)
    for index, (name, time_s) in enumerate(milestones):
        axes.axvline(time_s, color=GREY, linewidth=0.8, linestyle="--")
        # Milestones may lie close together: each has its own height above the curve.
        axes.annotate(
            f"{name} {number(time_s, 's')}",
            (time_s, 0.98 - 0.085 * index),
            (3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7,
            color=INK,
            va="top",
        )
