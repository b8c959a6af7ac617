"""What links did, as a short table on standard error: standard output is the programs'."""

from rich.console import Console
from rich.table import Table

from fadelab.link.report import DeviceReport, LinksReport, WayReport

_MOST_SHOWN = 10


def show(report: LinksReport) -> None:
    """Print the table."""
    console = Console(stderr=True, highlight=False)
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("link")
    for title in ("programmed MB", "achieved MB", "ratio", "on the wire MB", "lost", "leaked"):
        table.add_column(title, justify="right")
    shown = report.devices[:_MOST_SHOWN]
    for device in shown:
        for name, way in (("up", device.up), ("down", device.down)):
            table.add_row(f"{device.device} {name}", *_cells(way))
    console.print(table)
    if len(shown) < len(report.devices):
        console.print(f"... and {len(report.devices) - len(shown)} more devices")
    for label, text in _facts(report):
        console.print(f"[dim]{label}[/]  ", end="")
        console.print(text, markup=False, soft_wrap=True)


def _cells(way: WayReport) -> tuple[str, ...]:
    return (
        f"{way.programmed_bytes / 1e6:.3f}",
        f"{way.achieved_bytes / 1e6:.3f}",
        "-" if way.ratio is None else f"{way.ratio:.4f}",
        f"{way.wire_bytes / 1e6:.3f}",
        f"{way.lost_packets} of {way.arrived_packets}" if way.arrived_packets else "-",
        str(way.leaked_packets),
    )


def _facts(report: LinksReport) -> list[tuple[str, str]]:
    timing = report.timing
    late = (
        f"{timing.late_median_ms:.2f} ms (median), {timing.late_p99_ms:.2f} ms (99 %), "
        f"{timing.late_max_ms:.2f} ms (most)"
    )
    return [
        ("windows      ", _windows(report.devices)),
        ("link updates ", f"{timing.ticks}, late by {late}"),
        ("back-end     ", f"{report.variant.value}: {report.why}"),
    ]


def _windows(devices: list[DeviceReport]) -> str:
    closed = [device for device in devices if device.closed_s > 0]
    if not closed:
        return "always open"
    if len(devices) == 1:
        return f"{closed[0].windows}, closed for {closed[0].closed_s:g} s altogether"
    total_s = sum(device.closed_s for device in closed)
    return (
        f"{sum(device.windows for device in devices)} on {len(devices)} devices, closed for "
        f"{total_s:g} s altogether"
    )
