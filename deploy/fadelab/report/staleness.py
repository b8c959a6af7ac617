"""How old updates were when they were applied."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fadelab.report.markup import Markup, card, empty
from fadelab.report.model import Run
from fadelab.report.style import BLUE, PURPLE, WIDTH_IN, render
from fadelab.report.units import spread


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
        chart,
        caption="Staleness in versions: versions published between the one an update started from "
        "and its application. In seconds: emulated time between those two moments. "
        + "; ".join(parts).capitalize()
        + ".",
    )


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
