"""The convergence bound of DMA-FL, term by term over time."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fadelab.report.markup import Cell, Markup, card, join, table
from fadelab.report.model import Run
from fadelab.report.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH_IN,
    legend_above,
    render,
    use_log_scale,
)
from fadelab.report.units import NONE, number
from fadelab.results.period_schema import BoundPoint

_TERMS = {
    "a": ("(a) initial error", BLUE),
    "b": ("(b) dissimilarity", ORANGE),
    "c": ("(c) batch noise", SKY),
    "d": ("(d) local drift", GREEN),
    "e": ("(e) staleness", VERMILION),
    "f": ("(f) concept drift", PURPLE),
    "total": ("bound", INK),
}
_COLUMNS = 3
_LARGE = 1e6


def bound(run: Run) -> Markup:
    """Draw the bound's terms for each task; nothing for methods that compute none."""
    found = run.timeline.bounds
    # In the order of the experiment, not of first aggregations.
    names = dict.fromkeys([*run.summary.tasks, *found])
    histories = {name: found[name] for name in names if found.get(name)}
    if not histories:
        return Markup()
    rows = -(-len(histories) // _COLUMNS)
    chart = render(
        "bound",
        "Terms of the convergence bound of every task over emulated time",
        (0.06 + 0.32 * rows) * WIDTH_IN,
        lambda figure: _draw(figure, histories, rows),
    )
    headings = ["task", "aggregations", *(title for title, _ in _TERMS.values())]
    body = [_row(name, points[-1]) for name, points in histories.items()]
    return card(
        "Convergence bound",
        join(chart, table(headings, body, limit=len(body))),
        caption="Theorem 1 of DMA-FL (19), from measured dissimilarity, data variance, staleness and "
        "drift: an estimate, because what devices measure are lower limits of what the theorem "
        "assumes. It bounds the average squared gradient up to then. The table has the last "
        f"values; {NONE} is more than a number holds. On a logarithmic scale, terms that are not "
        "positive are left out: (a) is negative when the loss has risen. Term (e) grows without limit "
        "unless the staleness cap times the mixing weight is below 1.",
    )


def _draw(figure: Figure, histories: Mapping[str, Sequence[BoundPoint]], rows: int) -> None:
    columns = min(_COLUMNS, len(histories))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, points) in zip(grid.flat, histories.items(), strict=False):
        seconds = [point.t_s for point in points]
        for term, (title, colour) in _TERMS.items():
            values = np.array([_value(point, term) for point in points])
            axes.plot(
                seconds,
                np.where(values > 0, values, np.nan),
                color=colour,
                label=title,
                linewidth=2.0 if term == "total" else 1.1,
                linestyle="--" if term == "total" else "-",
                marker="o" if len(points) == 1 else "",
                markersize=3,
            )
        axes.set_title(name)
        axes.set_xlabel("emulated time (s)")
        if any((_value(point, term) or 0) > 0 for point in points for term in _TERMS):
            use_log_scale(axes, "y")
    for axes in grid.flat[len(histories) :]:
        axes.set_axis_off()
    grid[0, 0].set_ylabel("bound and its terms")
    legend_above(figure, grid[0, 0])


def _value(point: BoundPoint, term: str) -> float:
    value: float | None = getattr(point, term)
    return np.nan if value is None else value


def _row(name: str, point: BoundPoint) -> list[Cell]:
    values: list[float | None] = [getattr(point, term) for term in _TERMS]
    return [Cell(name), Cell(str(point.version), point.version), *map(_cell, values)]


def _cell(value: float | None) -> Cell:
    if value is None:
        return Cell(NONE)
    # Where K alpha is not below 1, numbers of a dozen digits would hide the others.
    return Cell(f"{value:.3g}" if abs(value) >= _LARGE else number(value), value)
