"""Whether the links did what they were told: connectivity, loss, delay, calibration."""

from collections.abc import Iterator

from fadelab.report.markup import Cell, Markup, card, empty, join, table, tag
from fadelab.report.model import Run
from fadelab.report.units import NONE, number, plural
from fadelab.results.bounds import (
    calibrated_delay_holds,
    calibrated_rate_holds,
    delay_holds,
    loss_holds,
)
from fadelab.results.connectivity import total
from fadelab.results.schema import Connectivity, LinkCalibration, LinkFidelity

_ROWS = 16


def proof(run: Run) -> Markup:
    """Show what carried the links and how its deeds compare with its orders."""
    return card(
        "Did the links do what they were told?",
        _backend(run),
        *_section("Connectivity", _connectivity(run)),
        *_section("Packet loss", _losses(run)),
        *_section("Delay", _delays(run)),
        *_section("Calibration before the run", _calibration(run)),
        caption="Marked: wrong connectivity, and what the experiment's validity section does not "
        "allow. Delays and calibrated rates are those of the wall clock.",
    )


def _section(title: str, content: Markup) -> tuple[Markup, Markup]:
    return tag("h3", title), content


def _backend(run: Run) -> Markup:
    links = run.summary.links
    if links.backend is None:
        return empty("The run ended before its links were made.")
    parts = [f"Back-end {links.variant or links.backend}"]
    if links.why is not None:
        parts[0] += f": {links.why}"
    if links.window is not None:
        parts.append(f"Closed links: {links.window}")
    if links.loss_is_seeded is not None:
        seeded = "the seed decides which packets are lost"
        parts.append(f"Loss: {seeded if links.loss_is_seeded else 'drawn anew in every run'}")
    better = tag("ul", *(tag("li", entry) for entry in links.passed_over))
    return join(
        tag("p", ". ".join(parts) + ".", class_="fact"),
        tag("details", tag("summary", "Better back-ends that were passed over"), better)
        if links.passed_over
        else "",
    )


def _connectivity(run: Run) -> Markup:
    found = run.summary.total.connectivity
    if found is None:
        return empty("The run recorded no readings of its links.")
    rows = [
        row
        for name, matrix in (
            ("uplinks", found.up),
            ("downlinks", found.down),
            ("both", total([found.up, found.down])),
        )
        for row in _matrix_rows(name, matrix)
    ]
    return join(
        table(["links", "programmed", "packets passed", "none passed", "wrong"], rows, limit=_ROWS),
        tag(
            "p",
            "Intervals between two readings of a link in which it was open, or closed, "
            "throughout. An open link counts if packets passed or if some waited all the time and "
            "there was time for three full frames; a closed one passes nothing from 20 ms after "
            "its closing on.",
            class_="caption",
        ),
    )


def _matrix_rows(name: str, matrix: Connectivity) -> Iterator[list[Cell]]:
    yield [
        Cell(name),
        Cell("open"),
        _count(matrix.open_passed),
        _count(matrix.open_stuck, is_bad=matrix.open_stuck > 0),
        _share(matrix.open_stuck, matrix.open_passed + matrix.open_stuck),
    ]
    yield [
        Cell(name),
        Cell("closed"),
        _count(matrix.closed_passed, is_bad=matrix.closed_passed > 0),
        _count(matrix.closed_silent),
        _share(matrix.closed_passed, matrix.closed_silent + matrix.closed_passed),
    ]


def _losses(run: Run) -> Markup:
    counted = [(who, link.loss) for *who, link in _links(run) if link.loss is not None]
    if not counted:
        return empty("Lost packets were not counted.")
    found = [(who, loss) for who, loss in counted if loss.z is not None]
    if not found:
        return empty("No loss was programmed, and no packet was lost.")
    found.sort(key=lambda entry: -abs(entry[1].z or 0))
    rows = [
        [
            *map(Cell, who),
            _count(loss.arrived),
            _share(loss.expected, loss.arrived),
            _share(loss.lost, loss.arrived),
            _count(loss.lost),
            _fixed(loss.expected, 1),
            _fixed(loss.z, 2, is_bad=not loss_holds(loss, run.bounds)),
        ]
        for who, loss in found
    ]
    headings = [
        "device", "direction", "packets", "programmed", "achieved", "lost", "expected", "z"
    ]  # fmt: skip
    return join(
        table(headings, rows, limit=_ROWS),
        tag(
            "p",
            f"z: lost less expected packets, in standard deviations of such a count; up to "
            f"{run.bounds.loss_z:g} are allowed. The links furthest off come first.",
            class_="caption",
        ),
    )


def _delays(run: Run) -> Markup:
    found = [(who, link.delay) for *who, link in _links(run) if link.delay is not None]
    if not found:
        return empty("No delay was programmed or timed.")
    found.sort(key=lambda entry: -abs(entry[1].error_ms))
    rows = [
        [
            *map(Cell, who),
            _fixed(delay.programmed_ms, 2),
            _fixed(delay.achieved_ms, 2),
            _fixed(delay.error_ms, 3, is_bad=not delay_holds(delay, run.bounds)),
            _fixed(delay.jitter_ms, 2),
            _fixed(delay.transmission_ms, 3),
            _count(delay.probes),
        ]
        for who, delay in found
    ]
    headings = [
        "device", "direction", "programmed (ms)", "achieved (ms)", "error (ms)", "jitter (ms)",
        "probe's transmission (ms)", "probes",
    ]  # fmt: skip
    return join(
        table(headings, rows, limit=_ROWS),
        tag(
            "p",
            "Medians of small datagrams timed over idle links. Allowed error: "
            f"{100 * run.bounds.delay_error_share:g} % and {run.bounds.delay_error_ms:g} ms, what "
            "jitter explains, and upwards the datagram's own transmission at the programmed rate, "
            "which an idle shaper spares it. The links furthest off come first.",
            class_="caption",
        ),
    )


def _calibration(run: Run) -> Markup:
    found = run.summary.links.calibration
    if not found:
        return empty("No link was measured before the run.")
    headings = [
        "device", "direction", "programmed (Mbit/s)", "achieved (Mbit/s)", "error",
        "programmed delay (ms)", "achieved delay (ms)", "within bounds",
    ]  # fmt: skip
    rows = [_calibration_row(run, row) for row in found]
    measured = len({row.device for row in found})
    return join(
        table(headings, rows, limit=_ROWS),
        tag(
            "p",
            f"{plural(measured, 'link')}, taken evenly from the slowest uplink to the fastest; "
            "flooded and probed in the state of the run's first tick.",
            class_="caption",
        ),
    )


def _calibration_row(run: Run, row: LinkCalibration) -> list[Cell]:
    rate_holds = calibrated_rate_holds(row.programmed_bps, row.achieved_bps, run.bounds)
    delay_is_right = calibrated_delay_holds(
        row.programmed_delay_ms,
        row.achieved_delay_ms,
        run.bounds,
        jitter_ms=row.jitter_ms,
        transmission_ms=row.transmission_ms,
    )
    error = row.achieved_bps - row.programmed_bps
    return [
        Cell(str(row.device)),
        Cell(row.direction),
        _fixed(row.programmed_bps / 1e6, 3),
        _fixed(row.achieved_bps / 1e6, 3),
        _share(error, row.programmed_bps, is_bad=not rate_holds),
        _fixed(row.programmed_delay_ms, 2),
        _fixed(row.achieved_delay_ms, 2, is_bad=not delay_is_right),
        Cell("yes" if row.within_bounds else "no", is_bad=not row.within_bounds),
    ]


def _links(run: Run) -> Iterator[tuple[str, str, LinkFidelity]]:
    for name, device in run.devices.items():
        yield name, "up", device.up
        yield name, "down", device.down


def _count(value: int, *, is_bad: bool = False) -> Cell:
    return Cell(number(value), value, is_bad)


def _fixed(value: float | None, places: int, *, is_bad: bool = False) -> Cell:
    # What was not measured sorts below everything that was.
    if value is None:
        return Cell(NONE, float("-inf"), is_bad)
    return Cell(f"{value:.{places}f}", value, is_bad)


def _share(part: float, whole: float, *, is_bad: bool = False) -> Cell:
    if whole <= 0:
        return Cell(NONE, float("-inf"), is_bad)
    percentage = 100 * part / whole
    return Cell(f"{percentage:.2f}\u202f%", percentage, is_bad)
