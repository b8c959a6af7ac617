"""How old updates were when they were applied."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fadelab.report.markup import Cell, Markup, card, empty, join, table
from fadelab.report.model import Run
from fadelab.report.style import BLUE, PURPLE, WIDTH_IN, render
from fadelab.report.units import NONE, number, spread


def staleness(run: Run) -> Markup:
    """Draw how stale the applied updates were."""
    title = "Staleness of applied updates"
    sample = run.summary.total.staleness
    if not sample.versions and not sample.seconds:
        return card(title, empty("No update was applied."))

    chart = render(
        "staleness",
        "Histograms of staleness in versions and in seconds",
        0.27 * WIDTH_IN,
        lambda figure: _draw_staleness(figure, sample.versions, sample.seconds),
    )
    parts = [
        f"in {unit}: {spread(values, short)}"
        for unit, short, values in (
            ("versions", "", sample.versions),
            ("seconds", "s", sample.seconds),
        )
        if values
    ]
    return card(
        title,
        join(chart, _by_task(run)),
        caption="Staleness in versions: versions of the task published between the one an update started from "
        "and its application. In seconds: emulated time between those two moments. "
        + "; ".join(parts).capitalize()
        + ".",
    )


def _by_task(run: Run) -> Markup:
    """List the tasks where there are several: their versions are counted apart."""
    tasks = run.summary.tasks
    if len(tasks) < 2:
        return Markup()
    headings = ("task", "updates applied", "mean (versions)", "largest (versions)", "largest (s)")
    rows = []
    for name, task in tasks.items():
        sample = task.staleness
        count = len(sample.versions)
        mean = sum(sample.versions) / count if count else None
        values = (mean, max(sample.versions, default=None), max(sample.seconds, default=None))
        cells = [Cell(NONE) if value is None else Cell(number(value), value) for value in values]
        rows.append([Cell(name), Cell(number(count), count), *cells])
    return table(headings, rows, limit=len(rows))


def _draw_staleness(figure: Figure, versions: Sequence[int], seconds: Sequence[float]) -> None:
    left, right = figure.subplots(1, 2)
    largest = max(versions, default=0)
    bins = np.arange(largest + 2) - 0.5 if largest < 40 else np.linspace(-0.5, largest + 0.5, 41)
    left.hist(versions, bins=bins, color=BLUE, alpha=0.85, rwidth=0.85)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_xlabel("staleness (versions)")
    right.hist(seconds, bins=30, range=(0, max(seconds, default=1)), color=PURPLE, alpha=0.85)
    right.set_xlim(left=0)
    right.set_xlabel("staleness (emulated s)")
    for axes in (left, right):
        axes.set_ylabel("updates")
        axes.yaxis.get_major_locator().set_params(integer=True)
