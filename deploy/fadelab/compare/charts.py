"""A comparison's pictures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fadelab.compare.curves import Curve, Curves
from fadelab.compare.rows import point_name
from fadelab.compare.schema import Comparison, Group, MeanResult
from fadelab.report.markup import Markup
from fadelab.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH_IN,
    render,
)
from fadelab.report.units import short_name

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK)
_MARKERS = "osD^vPX"
_DASHES = ("-", "--", ":", "-.")
_PANELS = 12
_DIFFERENCES = 60
_NAMED_TICKS = 8
_BESIDE = 0.2
"""How much of the smallest distance on an axis its variants take up."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Look:
    """How a variant is drawn, the same in all pictures."""

    colour: str
    marker: str
    dashes: str


def look_of(comparison: Comparison, variant: str) -> Look:
    """Return a variant's look."""
    place = comparison.variants.index(variant)
    return Look(
        _COLOURS[place % len(_COLOURS)],
        _MARKERS[place % len(_MARKERS)],
        _DASHES[place // len(_COLOURS) % len(_DASHES)],
    )


def curves_chart(number: int, comparison: Comparison, curves: Curves) -> tuple[Markup, int]:
    """Draw the metric over time, a panel for each grid point.

    Returns the picture and how many grid points it leaves out.
    """
    points: dict[str, list[Curve]] = {}
    for curve in curves.by_group:
        points.setdefault(point_name(curve.group.point), []).append(curve)
    shown = dict(list(points.items())[:_PANELS])

    def draw(axes: Axes, panel: list[Curve]) -> None:
        for curve in panel:
            look = look_of(comparison, curve.group.variant)
            axes.plot(
                curve.t_s,
                curve.mean,
                color=look.colour,
                linestyle=look.dashes,
                label=short_name(curve.group.variant, 40),
            )
            axes.fill_between(
                curve.t_s, curve.low, curve.high, color=look.colour, alpha=0.15, linewidth=0
            )

    def labels(axes: Axes) -> None:
        axes.set_xlabel("emulated time (s)")
        unit = f" ({curves.unit})" if curves.unit else ""
        axes.set_ylabel(f"{curves.metric}{unit}")

    picture = _panels(
        f"curves{number}",
        f"{curves.metric} of task {curves.task} over emulated time, by variant",
        shown,
        draw,
        labels,
        height=0.42 if len(shown) == 1 else 0.26,
    )
    return picture, len(points) - len(shown)


def axis_chart(number: int, comparison: Comparison, key: str, axis_name: str) -> Markup:
    """Draw one measure against one axis of the grid, a panel for each point of the others."""
    axis = next(axis for axis in comparison.axes if axis.name == axis_name)
    numeric = all(value is not None for value in axis.numbers)
    places = {
        label: float(value) if numeric and value is not None else float(place)
        for place, (label, value) in enumerate(zip(axis.labels, axis.numbers, strict=True))
    }
    panels: dict[str, list[Group]] = {}
    for group in comparison.groups:
        if axis_name in group.point and group.results[key].mean is not None:
            others = {name: label for name, label in group.point.items() if name != axis_name}
            panels.setdefault(point_name(others), []).append(group)

    # Variants stand side by side, so that their intervals do not hide one another.
    gaps = [b - a for a, b in pairwise(sorted(places.values())) if b > a]
    step = _BESIDE * min(gaps, default=1.0) / len(comparison.variants)

    def draw(axes: Axes, groups: list[Group]) -> None:
        for place, variant in enumerate(comparison.variants):
            shift = step * (place - (len(comparison.variants) - 1) / 2)
            own = [group for group in groups if group.variant == variant]
            if own:
                placed = [(places[group.point[axis_name]] + shift, group) for group in own]
                _draw_line(axes, comparison, key, placed)
        if not numeric or len(places) <= _NAMED_TICKS:
            axes.set_xticks(list(places.values()), [short_name(label) for label in places])

    def labels(axes: Axes) -> None:
        axes.set_xlabel(axis_name)
        axes.set_ylabel(_label(comparison, key))

    shown = dict(list(panels.items())[:_PANELS])
    title = f"{comparison.measures[key].title} against {axis_name}, by variant"
    height = 0.36 if len(shown) == 1 else 0.26
    return _panels(f"axis{number}", title, shown, draw, labels, height=height)


def _draw_line(
    axes: Axes, comparison: Comparison, key: str, placed: Sequence[tuple[float, Group]]
) -> None:
    variant = placed[0][1].variant
    look = look_of(comparison, variant)
    means = [(x, group.results[key].mean) for x, group in sorted(placed, key=lambda pair: pair[0])]
    known = [(x, mean) for x, mean in means if mean is not None]
    axes.errorbar(
        [x for x, _ in known],
        [mean.mean for _, mean in known],
        yerr=[0.0 if mean.high is None else mean.high - mean.mean for _, mean in known],
        color=look.colour,
        linestyle=look.dashes,
        marker=look.marker,
        markersize=4,
        capsize=3,
        elinewidth=0.9,
        label=short_name(variant, 40),
    )


def tradeoff_chart(number: int, comparison: Comparison, key: str, cost: str) -> Markup:
    """Draw one measure against another, a point for each variant, a panel for each grid point."""
    panels: dict[str, list[Group]] = {}
    for group in comparison.groups:
        if all(group.results[name].mean is not None for name in (key, cost)):
            panels.setdefault(point_name(group.point), []).append(group)

    def draw(axes: Axes, groups: list[Group]) -> None:
        for group in groups:
            look, x, y = look_of(comparison, group.variant), *_means(group, cost, key)
            axes.errorbar(
                [x.mean],
                [y.mean],
                xerr=[0.0 if x.high is None else x.high - x.mean],
                yerr=[0.0 if y.high is None else y.high - y.mean],
                color=look.colour,
                marker=look.marker,
                markersize=5,
                capsize=3,
                elinewidth=0.9,
                linestyle="none",
                label=short_name(group.variant, 40),
            )

    def labels(axes: Axes) -> None:
        axes.set_xlabel(_label(comparison, cost))
        axes.set_ylabel(_label(comparison, key))

    shown = dict(list(panels.items())[:_PANELS])
    title = (
        f"{comparison.measures[key].title} against {comparison.measures[cost].title}, by variant"
    )
    height = 0.36 if len(shown) == 1 else 0.26
    return _panels(f"tradeoff{number}", title, shown, draw, labels, height=height)


def _means(group: Group, *keys: str) -> list[MeanResult]:
    found = [group.results[key].mean for key in keys]
    return [mean for mean in found if mean is not None]


def differences_chart(number: int, comparison: Comparison, key: str) -> tuple[Markup, int]:
    """Draw paired differences to the baseline with their intervals, one line for each group.

    Returns the picture and how many differences it leaves out.
    """
    groups = [group for group in comparison.groups if group.results[key].difference is not None]
    shown = groups[:_DIFFERENCES]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, group in enumerate(shown):
            difference = group.results[key].difference
            assert difference is not None
            look = look_of(comparison, group.variant)
            width = 0.0 if difference.high is None else difference.high - difference.mean
            axes.errorbar(
                [difference.mean], [place], xerr=[width], color=look.colour, marker=look.marker,
                markersize=5, capsize=3, linestyle="none",
            )  # fmt: skip
        axes.axvline(0.0, color=GREY, linewidth=1)
        axes.set_yticks(range(len(shown)), [_group_name(group) for group in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(
            f"{_label(comparison, key)}, less that of {short_name(comparison.baseline or '', 40)}"
        )

    picture = render(
        f"differences{number}",
        f"Paired differences of {comparison.measures[key].title} to {comparison.baseline}",
        0.7 + 0.22 * max(2, len(shown)),
        draw,
    )
    return picture, len(groups) - len(shown)


def has_differences(comparison: Comparison, key: str) -> bool:
    """Say whether any group can be paired with the baseline."""
    return any(group.results[key].difference is not None for group in comparison.groups)


def _group_name(group: Group) -> str:
    point = point_name(group.point)
    return short_name(f"{group.variant}, {point}" if point else group.variant, 44)


def _label(comparison: Comparison, key: str) -> str:
    info = comparison.measures[key]
    return f"{info.title} ({info.unit})" if info.unit else info.title


def _panels(
    name: str,
    description: str,
    panels: dict[str, list[_T]],
    draw: Callable[[Axes, list[_T]], None],
    label: Callable[[Axes], None],
    *,
    height: float,
) -> Markup:
    """Draw panels of common scale, three in a row, with one legend for all."""
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)

    def whole(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        handles: dict[str, Artist] = {}
        for axes, (title, content) in zip(grid.flat, panels.items(), strict=False):
            draw(axes, content)
            axes.set_title(short_name(title, 44))
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        label(grid[0, 0])
        x_label, y_label = grid[0, 0].get_xlabel(), grid[0, 0].get_ylabel()
        for place, axes in enumerate(grid.flat[: len(panels)]):
            # The lowest panel of a column carries its scale, also where the last row is not full.
            is_lowest = place + columns >= len(panels)
            axes.set_xlabel(x_label if is_lowest else "")
            axes.tick_params(labelbottom=is_lowest)
            axes.set_ylabel(y_label if place % columns == 0 else "")
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside upper left",
            ncols=min(5, len(handles)),
        )

    return render(name, description, (height * rows + 0.04) * WIDTH_IN, whole)
