"""How closely each link obeyed its model."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fadelab.report.markup import Markup, card, empty
from fadelab.report.model import Band, Run
from fadelab.report.style import DOWN, GREY, INK, UP, legend_above, note, render, use_log_scale
from fadelab.report.units import number, short_name
from fadelab.results.schema import LinkFidelity

TCP_CEILING = 1448 / 1514
"""TCP payload per layer-2 byte in full Ethernet frames with timestamps: goodput's upper bound."""

_CAPTION = (
    "Left: bytes that left the shaper over the integral of the programmed rate, both over the "
    "saturated ticks, in which the queue never emptied; layer-2 bytes, 1 is exact. A run is valid "
    "only while every ratio lies in the shaded band, {low} to {high}. Right: payload bits per "
    "second of the updates in transfer, measured at the receiver, against the mean programmed rate "
    "in that time. Goodput excludes headers, so at best it reaches the TCP ceiling, {ceiling} of "
    "the programmed rate; pauses of the sender lower it further and do not make a link wrong."
)


def fidelity(run: Run) -> Markup:
    """Draw programmed against achieved, as ratio in saturated ticks and as goodput."""
    title = "Programmed versus achieved"
    links = [link for device in run.devices.values() for link in (device.up, device.down)]
    if all(link.ratio is None and link.achieved_goodput_bps is None for link in links):
        return card(
            title, empty("No link was ever saturated and no update was in transfer: no comparison.")
        )

    height_in = min(max(2.4, 0.9 + 0.24 * len(run.devices)), 8) if run.shows_names else 4.2
    chart = render(
        "fidelity",
        "Ratio of achieved to programmed bytes per link, and goodput against programmed rate",
        height_in,
        lambda figure: _draw(figure, run),
    )
    caption = _CAPTION.format(
        low=number(run.ratio_band.low, digits=4),
        high=number(run.ratio_band.high, digits=4),
        ceiling=number(TCP_CEILING),
    )
    return card(title, chart, caption=caption)


def _draw(figure: Figure, run: Run) -> None:
    left, right = figure.subplots(1, 2)
    up = [device.up for device in run.devices.values()]
    down = [device.down for device in run.devices.values()]
    if all(link.ratio is None for link in up + down):
        note(left, "No link had a saturated tick.")
    elif run.shows_names:
        _draw_ratio_lanes(left, run)
    else:
        _draw_ratio_ranks(left, run)
    if all(_goodput_mbps(link) is None for link in up + down):
        note(right, "No update was in transfer.")
    elif run.shows_names:
        _draw_goodput_lanes(right, run)
    else:
        _draw_goodput_scatter(right, run)
    for axes in (left, right):
        if axes.axison:
            legend_above(figure, axes)
            break


def _directions(run: Run) -> list[tuple[str, str, str, float, list[LinkFidelity]]]:
    """List both directions with name, colour, marker, offset in a lane, and links."""
    devices = run.devices.values()
    return [
        ("uplink", UP, "o", -0.16, [device.up for device in devices]),
        ("downlink", DOWN, "s", 0.16, [device.down for device in devices]),
    ]


def _goodput_mbps(link: LinkFidelity) -> tuple[float, float] | None:
    """Return programmed and achieved goodput, or None if either was not measured."""
    if link.programmed_goodput_bps is None or link.achieved_goodput_bps is None:
        return None
    return link.programmed_goodput_bps / 1e6, link.achieved_goodput_bps / 1e6


def _draw_ratio_lanes(axes: Axes, run: Run) -> None:
    axes.axvspan(*run.ratio_band, color=GREY, alpha=0.2, linewidth=0)
    axes.axvline(1, color=GREY, linewidth=0.8)
    ratios = []
    for name, colour, marker, offset, links in _directions(run):
        seen = [(link.ratio, i + offset) for i, link in enumerate(links) if link.ratio is not None]
        ratios += [ratio for ratio, _ in seen]
        x, y = zip(*seen, strict=True) if seen else ((), ())
        axes.plot(x, y, marker, color=colour, markersize=4, label=name)
    axes.set_xlim(*_limits(ratios, run.ratio_band))
    axes.set_xlabel("achieved / programmed bytes, saturated ticks")
    axes.set_title("layer-2 bytes, per link")
    _name_lanes(axes, run)


def _name_lanes(axes: Axes, run: Run) -> None:
    axes.set_yticks(range(len(run.devices)), [short_name(name) for name in run.devices])
    axes.set_ylim(len(run.devices) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _limits(ratios: list[float], band: Band) -> tuple[float, float]:
    low, high = min([*ratios, band.low]), max([*ratios, band.high])
    margin = 0.1 * (high - low)
    return low - margin, high + margin


def _draw_ratio_ranks(axes: Axes, run: Run) -> None:
    axes.axhspan(*run.ratio_band, color=GREY, alpha=0.2, linewidth=0)
    axes.axhline(1, color=GREY, linewidth=0.8)
    every = []
    for name, colour, marker, _, links in _directions(run):
        ratios = sorted(link.ratio for link in links if link.ratio is not None)
        every += ratios
        axes.plot(
            range(1, len(ratios) + 1), ratios, marker, color=colour, markersize=2.5, label=name
        )
    axes.set_ylim(*_limits(every, run.ratio_band))
    axes.set_xlabel("links, from the lowest ratio to the highest")
    axes.set_ylabel("achieved / programmed bytes")
    axes.set_title("layer-2 bytes in saturated ticks, per link")


def _draw_goodput_lanes(axes: Axes, run: Run) -> None:
    largest = 0.0
    for name, colour, marker, offset, links in _directions(run):
        pairs = [_goodput_mbps(link) for link in links]
        seen = [(*pair, i + offset) for i, pair in enumerate(pairs) if pair is not None]
        if not seen:
            continue
        programmed, achieved, lanes = zip(*seen, strict=True)
        largest = max(largest, *programmed, *achieved)
        axes.hlines(lanes, achieved, programmed, color=colour, linewidth=0.8, alpha=0.6)
        axes.plot(programmed, lanes, "|", color=colour, markersize=7, markeredgewidth=1.6)
        axes.plot(achieved, lanes, marker, color=colour, markersize=4, label=name)
    axes.set_xlim(0, 1.05 * largest)
    axes.set_xlabel("Mbit/s; bar: programmed rate, dot: achieved goodput")
    axes.set_title("goodput while updates were in transfer")
    _name_lanes(axes, run)


def _draw_goodput_scatter(axes: Axes, run: Run) -> None:
    pairs: list[tuple[float, float]] = []
    for name, colour, marker, _, links in _directions(run):
        seen = [pair for link in links if (pair := _goodput_mbps(link)) is not None]
        x, y = zip(*seen, strict=True) if seen else ((), ())
        axes.plot(x, y, marker, color=colour, markersize=2.5, alpha=0.7, label=name)
        pairs += seen
    smallest = min(min(pair) for pair in pairs)
    largest = max(max(pair) for pair in pairs)
    if smallest > 0 and largest > 30 * smallest:
        use_log_scale(axes, "x")
        use_log_scale(axes, "y")
    ends = np.array([smallest, largest])
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.plot(ends, TCP_CEILING * ends, color=INK, linewidth=0.8, linestyle="--")
    axes.set_xlabel("mean programmed rate (Mbit/s)")
    axes.set_ylabel("achieved goodput (Mbit/s)")
    axes.set_title("goodput; solid: equal, dashed: TCP ceiling")
