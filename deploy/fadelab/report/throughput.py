"""Programmed rate and achieved throughput of every link over time."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fadelab.report.markup import Markup, card, empty
from fadelab.report.model import FloatArray, Run
from fadelab.report.style import DOWN, GREY, INK, UP, render
from fadelab.report.units import number, short_name
from fadelab.results.throughput import Throughput, ThroughputDirection

_TITLE = "Programmed rate and achieved throughput over time"
_LANE = 0.82
"""Height of a lane's largest value; the rest of 1 keeps lanes apart."""
_CAPTION = (
    "Line: the layer-2 rate that {whose} programmed to carry, drawn while {open}; a closed link "
    "counts 0 in a step that is open in part. Area: layer-2 bits that left {shaper}, from readings "
    "made at the ticks, averaged over steps of {step}. An area below its line is no fault: the "
    "device had less to send. Above it, the link was faster than programmed for that long; a frame "
    "or two are its burst."
)


def throughput(run: Run) -> Markup:
    """Draw a small chart for each link; of many devices, the sum of all."""
    found = run.throughput
    if found is None or not run.devices:
        return card(_TITLE, empty("The run recorded no readings of its links."))
    devices = len(run.devices)
    height_in = 0.7 + min(0.7, max(0.3, 8 / devices)) * devices if run.shows_names else 4.2
    chart = render(
        "throughput",
        "Programmed rate and achieved throughput of the links against time",
        height_in,
        lambda figure: (
            _draw_links(figure, run, found) if run.shows_names else _draw_sum(figure, found)
        ),
    )
    step = number(float(found.edges_s[1] - found.edges_s[0]), "s")
    one = {"whose": "a link was", "open": "it was open", "shaper": "its shaper"}
    all_of_them = {
        "whose": "all open links together were",
        "open": "any was open",
        "shaper": "their shapers",
    }
    words = one if run.shows_names else all_of_them
    return card(_TITLE, chart, caption=_CAPTION.format(**words, step=step))


def _draw_links(figure: Figure, run: Run, found: Throughput) -> None:
    """Draw each link into a lane of its own scale: one chart of lanes is light, many charts not."""
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, direction, colour in zip(panels, (found.up, found.down), (UP, DOWN), strict=True):
        for lane in range(len(run.devices)):
            programmed, achieved = (
                direction.programmed_bps[:, lane],
                direction.achieved_bps[:, lane],
            )
            top_bps = max(1.0, np.nanmax([*programmed, *achieved, 0.0]))
            scale = _LANE / top_bps
            _draw(axes, found.edges_s, scale * programmed, scale * achieved, colour, base=-lane)
            axes.axhline(-lane, color=GREY, linewidth=0.6)
            axes.text(
                1.01, _LANE - lane, number(top_bps / 1e6), transform=axes.get_yaxis_transform(),
                fontsize=6.5, va="center",
            )  # fmt: skip
        axes.grid(visible=False, axis="y")
        axes.set_xlim(found.edges_s[0], found.edges_s[-1])
    lanes = np.arange(len(run.devices))
    panels[0].set_yticks(_LANE / 2 - lanes, [short_name(name) for name in run.devices])
    panels[0].set_ylim(0.9 - len(run.devices), _LANE + 0.1)
    _label(panels, "{}; at the right: top of each lane (Mbit/s)")


def _draw_sum(figure: Figure, found: Throughput) -> None:
    panels = figure.subplots(1, 2, sharex=True)
    for axes, direction, colour in zip(panels, (found.up, found.down), (UP, DOWN), strict=True):
        programmed, achieved = _sums(direction)
        _draw(axes, found.edges_s, programmed / 1e6, achieved / 1e6, colour)
        axes.set_xlim(found.edges_s[0], found.edges_s[-1])
        axes.set_ylim(bottom=0)
    _label(panels, "{}, all links (Mbit/s)")


def _sums(direction: ThroughputDirection) -> tuple[FloatArray, FloatArray]:
    programmed, achieved = (
        np.where(np.isnan(values).all(axis=1), np.nan, np.nansum(values, axis=1))
        for values in (direction.programmed_bps, direction.achieved_bps)
    )
    return programmed, achieved


def _draw(
    axes: Axes,
    edges_s: FloatArray,
    programmed: FloatArray,
    achieved: FloatArray,
    colour: str,
    *,
    base: float = 0.0,
) -> None:
    area = base + np.nan_to_num(achieved)
    axes.stairs(area, edges_s, baseline=base, fill=True, color=colour, alpha=0.55)
    axes.stairs(base + programmed, edges_s, baseline=None, color=INK, linewidth=0.8)


def _label(panels: Iterable[Axes], title: str) -> None:
    for axes, name in zip(panels, ("uplink", "downlink"), strict=True):
        axes.set_title(title.format(name))
        axes.set_xlabel("emulated time (s)")
