"""Where the bytes went: by what they were, by packet class, and by device."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fadelab.report.markup import Cell, Markup, card, empty, join
from fadelab.report.markup import table as build_table
from fadelab.report.model import Run
from fadelab.report.style import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    legend_above,
    render,
)
from fadelab.report.units import NONE, byte_size, number, short_name
from fadelab.results.schema import DevicePackets, DirectionBytes

_PARTS = {
    "payload": "payload (codec)",
    "packet_headers": "packet headers",
    "framing": "gRPC, HTTP/2, control",
    "undelivered": "datagrams lost or repeated",
    "retransmitted": "sent again by TCP",
    "ip_headers": "TCP, UDP and IP headers",
    "ethernet": "Ethernet headers",
    "probes": "delay probes",
    "waiting": "less what still waited at the end",
    "overflowed": "less frames that found a queue full",
    "residual": "residual",
}
_KINDS: dict[str, tuple[str, Callable[[DirectionBytes], int]]] = {
    "payload": (BLUE, lambda d: d.payload),
    "packet headers": (PURPLE, lambda d: d.packet_headers),
    "gRPC, HTTP/2, control": (SKY, lambda d: d.framing),
    "IP and Ethernet headers": (ORANGE, lambda d: d.ip_headers + d.ethernet),
    "lost or sent again": (VERMILION, lambda d: d.undelivered + d.retransmitted),
    "rest": (GREY, lambda d: d.probes + d.residual - d.waiting - d.overflowed),
}
"""What a chart tells apart: colour and bytes."""
_ROWS = 32
_RANKS = 200
_EXPLAINED_PERCENT = 1.0
"""A larger residual is marked."""


def ledger(run: Run) -> Markup:
    """Draw and list where the bytes went."""
    title = "Where the bytes went"
    if not run.devices:
        return card(title, empty("The run had no devices."))

    height_in = max(1.6, 0.9 + 0.2 * len(run.devices)) if run.shows_names else 3.2
    chart = render(
        "ledger",
        "Bytes of every device by kind, uplink and downlink",
        height_in,
        lambda figure: _draw(figure, run),
    )
    return card(
        title,
        join(_parts(run), _classes(run), chart, _devices(run)),
        caption="Seen from the device. Payload and packet headers: packets that the other end "
        "took, each once, from the events. gRPC, HTTP/2, control: what else TCP carried, packets "
        "that were cut off or came twice included. This, what TCP sent again and its segments are "
        "the kernel's counts of every connection; headers follow from the segments. Wire: layer-2 "
        "bytes by the interface counters. Residual: what the other rows do not explain of it.",
    )


def _parts(run: Run) -> Markup:
    """List the parts of both directions."""
    total = run.summary.total.bytes

    def cells(direction: DirectionBytes, part: str) -> list[Cell]:
        count = getattr(direction, part)
        if part in ("waiting", "overflowed"):
            count = -count
        percent = 100 * count / direction.wire if direction.wire else None
        return [Cell(byte_size(count), count), Cell(_percent(percent), percent or 0.0)]

    rows = [
        [Cell(name), *cells(total.up, part), *cells(total.down, part)]
        for part, name in _PARTS.items()
        if part not in ("undelivered", "probes", "waiting", "overflowed")
        or getattr(total.up, part)
        or getattr(total.down, part)
    ]
    foot = [Cell("wire"), *cells(total.up, "wire"), *cells(total.down, "wire")]
    headings = ["bytes", "uplink", "of wire", "downlink", "of wire"]
    return build_table(headings, rows, foot=foot, limit=len(rows))


def _classes(run: Run) -> Markup:
    """List the packets by direction, task and class."""
    groups: dict[tuple[str, str, str], list[DevicePackets]] = defaultdict(list)
    for device in run.devices.values():
        for row in device.packets:
            groups[row.direction, row.task, row.packet_class].append(row)
    sums = {
        key: [
            sum(getattr(row, name) for row in group) for name in ("packets", "payload", "headers")
        ]
        for key, group in groups.items()
    }
    rows = [
        [
            Cell(f"{direction}link"),
            Cell(task),
            Cell(name),
            Cell(number(packets), packets),
            Cell(byte_size(payload), payload),
            Cell(byte_size(headers), headers),
        ]
        for (direction, task, name), (packets, payload, headers) in sorted(sums.items())
    ]
    if not rows:
        return empty("No packet came through.")
    headings = ["direction", "task", "packet class", "packets", "payload", "packet headers"]
    return build_table(headings, rows, limit=_ROWS)


def _devices(run: Run) -> Markup:
    headings = [
        "device",
        *(
            f"{direction} {name}"
            for direction in ("up", "down")
            for name in ("payload", "sent again", "wire", "residual")
        ),
    ]
    ranked = sorted(
        run.devices.items(),
        key=lambda item: item[1].bytes.up.wire + item[1].bytes.down.wire,
        reverse=True,
    )
    rows = [
        [Cell(name), *_device_cells(device.bytes.up), *_device_cells(device.bytes.down)]
        for name, device in ranked
    ]
    total = run.summary.total.bytes
    foot = [Cell("total"), *_device_cells(total.up), *_device_cells(total.down)]
    return build_table(headings, rows, foot=foot, limit=_ROWS)


def _device_cells(direction: DirectionBytes) -> list[Cell]:
    again = direction.undelivered + direction.retransmitted
    percent = direction.residual_percent
    return [
        Cell(byte_size(direction.payload), direction.payload),
        Cell(byte_size(again), again),
        Cell(byte_size(direction.wire), direction.wire),
        Cell(
            _percent(percent),
            percent or 0.0,
            is_bad=percent is not None and abs(percent) > _EXPLAINED_PERCENT,
        ),
    ]


def _percent(value: float | None) -> str:
    """Write a percentage; a hundredth is finer than any use of it."""
    return NONE if value is None else f"{value:.2f}\u202f%"


def _draw(figure: Figure, run: Run) -> None:
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
    for kind, (colour, count) in _KINDS.items():
        width = np.array([max(0, count(row)) for row in rows]) / 1e6
        axes.barh(lanes, width, left=left, height=0.7, color=colour, label=kind)
        left += width
    axes.set_xlabel("MB")
    axes.grid(visible=False, axis="y")


def _draw_ranks(axes: Axes, rows: Sequence[DirectionBytes]) -> None:
    """Stack the kinds over the devices in order of their wire bytes."""
    ranked = sorted(rows, key=lambda row: row.wire, reverse=True)
    ranks = np.unique(np.linspace(0, len(ranked) - 1, _RANKS).astype(int))
    stacks = [
        np.array([max(0, count(ranked[rank])) for rank in ranks]) / 1e6
        for _, count in _KINDS.values()
    ]
    colours = [colour for colour, _ in _KINDS.values()]
    axes.stackplot(ranks + 1, stacks, colors=colours, labels=list(_KINDS))
    axes.set_xlim(1, len(ranked))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("devices, from the most wire bytes to the fewest")
    axes.set_ylabel("MB per device")
