"""Every device in one row."""

import json

from fadelab.report.markup import Cell, Markup, card, join, table, tag
from fadelab.report.model import Band, Run
from fadelab.report.units import NONE, number
from fadelab.results.schema import DeviceResult, LinkFidelity

_ROWS = 100

_HEADINGS = (
    "device",
    "windows",
    "updates complete",
    "partial",
    "lost",
    "up wire (MB)",
    "down wire (MB)",
    "up ratio",
    "down ratio",
    "up goodput (Mbit/s)",
    "leaked packets",
    "wrong connectivity",
    "resume max (ms)",
    "mean staleness",
    "energy (J)",
    "join (s)",
    "memory (MiB)",
)


def device_table(run: Run) -> Markup:
    """List the devices; where they are too many, those that need attention come first."""
    order = list(run.devices.items())
    if len(order) > _ROWS:
        order.sort(key=lambda item: _attention(item[1], run.ratio_band), reverse=True)
    return card(
        "Devices",
        table(
            _HEADINGS, [_row(name, device, run.ratio_band) for name, device in order], limit=_ROWS
        ),
        caption="Click a heading to sort. Ratio: achieved over programmed bytes in saturated "
        "ticks. Wrong connectivity: intervals between readings in which packets passed a closed "
        "link, or waited at an open one and none passed. Staleness in versions. Join: wall "
        "seconds from the command. Marked: leaked packets, wrong connectivity, and ratios outside "
        "the validity band."
        + (" Devices with marks and lost updates come first." if len(order) > _ROWS else ""),
    )


def _links(device: DeviceResult) -> tuple[LinkFidelity, LinkFidelity]:
    return device.up, device.down


def _is_outside(link: LinkFidelity, band: Band) -> bool:
    return link.ratio is not None and not band.low <= link.ratio <= band.high


def _attention(device: DeviceResult, band: Band) -> tuple[int, int, int, float]:
    links = _links(device)
    return (
        sum(link.leaked_packets for link in links) + (_wrong_intervals(device) or 0),
        sum(_is_outside(link, band) for link in links),
        device.updates.lost,
        max(abs(link.ratio - 1) if link.ratio is not None else 0.0 for link in links),
    )


def _wrong_intervals(device: DeviceResult) -> int | None:
    known = [link.connectivity for link in _links(device) if link.connectivity is not None]
    return sum(m.open_stuck + m.closed_passed for m in known) if known else None


def _wrong_cell(device: DeviceResult) -> Cell:
    wrong = _wrong_intervals(device)
    return _quantity(wrong, is_bad=bool(wrong))


def _row(name: str, device: DeviceResult, band: Band) -> list[Cell]:
    updates, joules = device.updates, device.joules
    leaked = sum(link.leaked_packets for link in _links(device))
    versions = device.staleness.versions
    energy_j = joules.compute + joules.uplink + joules.downlink
    goodput_bps = device.up.achieved_goodput_bps
    return [
        Cell(name),
        _quantity(len(device.contacts)),
        _quantity(updates.complete),
        _quantity(updates.partial),
        _quantity(updates.lost),
        _quantity(device.bytes.up.wire / 1e6),
        _quantity(device.bytes.down.wire / 1e6),
        *(_quantity(link.ratio, is_bad=_is_outside(link, band)) for link in _links(device)),
        _quantity(None if goodput_bps is None else goodput_bps / 1e6),
        _quantity(leaked, is_bad=leaked > 0),
        _wrong_cell(device),
        _quantity(max(device.resume_ms, default=None)),
        _quantity(sum(versions) / len(versions) if versions else None),
        _quantity(energy_j),
        _quantity(device.join_s),
        _quantity(device.private_memory_mib),
    ]


def _quantity(value: float | None, *, is_bad: bool = False) -> Cell:
    # What was not measured sorts below everything that was.
    if value is None:
        return Cell(NONE, float("-inf"))
    return Cell(number(value, digits=4, keep_zeros=True), value, is_bad)


def manifest(run: Run) -> Markup:
    """Show the manifest: what was asked for and what it ran on."""
    text = json.dumps(run.manifest, indent=2, sort_keys=True, default=str, ensure_ascii=False)
    scalars = ", ".join(
        f"{key} {value}"
        for key, value in sorted(run.manifest.items())
        if isinstance(value, (str, int, float)) and len(str(value)) <= 60
    )
    return card(
        "Manifest",
        join(
            tag("p", scalars) if scalars else "",
            tag("details", tag("summary", "The whole manifest.json"), tag("pre", text)),
        ),
        caption="The experiment with every default filled in, seeds, versions, the kernel's "
        "capabilities and the back-end: what it takes to repeat the run.",
    )
