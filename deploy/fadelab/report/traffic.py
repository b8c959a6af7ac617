"""What crossed the links, and how old it was when it was applied."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fadelab.report.markup import Cell, Markup, card, empty, join
from fadelab.report.markup import table as build_table
from fadelab.report.model import Run
from fadelab.report.style import (
    BLUE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH_IN,
    legend_above,
    render,
)
from fadelab.report.units import byte_size, short_name, spread
from fadelab.results.schema import DirectionBytes

_KINDS = {"payload": BLUE, "framing": SKY, "retransmitted": VERMILION}
_LEDGER_ROWS = 32
_RANKS = 200


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


def ledger(run: Run) -> Markup:
    """Draw and list where the bytes of each device went."""
    title = "Byte ledger"
    if not run.devices:
        return card(title, empty("The run had no devices."))

    height_in = max(1.6, 0.9 + 0.2 * len(run.devices)) if run.shows_names else 3.2
    chart = render(
        "ledger",
        "Bytes of every device by kind, uplink and downlink",
        height_in,
        lambda figure: _draw_ledger(figure, run),
    )
    return card(
        title,
        join(chart, _table(run)),
        caption="Wire: layer-2 bytes counted by the kernel at the interfaces, in both directions "
        "seen from the device. Payload: codec output (uplink) or model values (downlink). Framing: "
        "packet headers, gRPC, HTTP/2, TCP/IP, Ethernet, acknowledgements and control. "
        "Retransmitted: TCP payload sent again, from the kernel's TCP_INFO. The three kinds add up "
        "to the wire bytes.",
    )


def _draw_ledger(figure: Figure, run: Run) -> None:
    panels = figure.subplots(1, 2, sharey=run.shows_names)
    for axes, direction in zip(panels, ("up", "down"), strict=True):
        rows: list[DirectionBytes] = [
            getattr(device.bytes, direction) for device in run.devices.values()
        ]
        axes.set_title(f"{direction}link")
        if run.shows_names:
            _draw_bars(axes, rows)
        else:
            _draw_ranks(axes, rows)
    if run.shows_names:
        panels[0].set_yticks(range(len(run.devices)), [short_name(name) for name in run.devices])
        panels[0].set_ylim(len(run.devices) - 0.5, -0.5)
    legend_above(figure, panels[0])


def _draw_bars(axes: Axes, rows: Sequence[DirectionBytes]) -> None:
    lanes = np.arange(len(rows))
    left = np.zeros(len(rows))
    for kind, colour in _KINDS.items():
        width = np.array([getattr(row, kind) for row in rows]) / 1e6
        axes.barh(lanes, width, left=left, height=0.7, color=colour, label=kind)
        left += width
    axes.set_xlabel("MB")
    axes.grid(visible=False, axis="y")


def _draw_ranks(axes: Axes, rows: Sequence[DirectionBytes]) -> None:
    """Stack the kinds over the devices in order of their wire bytes."""
    ranked = sorted(rows, key=lambda row: row.wire, reverse=True)
    ranks = np.unique(np.linspace(0, len(ranked) - 1, _RANKS).astype(int))
    stacks = [np.array([getattr(ranked[rank], kind) for rank in ranks]) / 1e6 for kind in _KINDS]
    axes.stackplot(ranks + 1, stacks, colors=list(_KINDS.values()), labels=list(_KINDS))
    axes.set_xlim(1, len(ranked))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("devices, from the most wire bytes to the fewest")
    axes.set_ylabel("MB per device")


def _table(run: Run) -> Markup:
    headings = [
        "device",
        *(f"{direction} {kind}" for direction in ("up", "down") for kind in (*_KINDS, "wire")),
    ]
    ranked = sorted(
        run.devices.items(),
        key=lambda item: item[1].bytes.up.wire + item[1].bytes.down.wire,
        reverse=True,
    )
    rows = [
        [Cell(name), *_cells(device.bytes.up), *_cells(device.bytes.down)]
        for name, device in ranked
    ]
    total = run.summary.total.bytes
    foot = [Cell("total"), *_cells(total.up), *_cells(total.down)]
    return build_table(headings, rows, foot=foot, limit=_LEDGER_ROWS)


def _cells(direction: DirectionBytes) -> list[Cell]:
    counts = [getattr(direction, kind) for kind in (*_KINDS, "wire")]
    return [Cell(byte_size(count), count) for count in counts]
