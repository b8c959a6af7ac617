"""What a run found, as it is printed when it is over."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fadelab.cli.links_outcome import link_rows
from fadelab.results.period_schema import Periods
from fadelab.results.schema import Summary, TaskResult
from fadelab.results.sp_fl_schema import ClassArrivals


def show_summary(console: Console, run_dir: Path, summary: Summary) -> None:
    """Print what a run found, and its verdict."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, task in summary.tasks.items():
        if task.final is not None and task.best is not None:
            table.add_row(name, _reached(task))
        many = len(summary.tasks) > 1
        table.add_row(f"{name} versions" if many else "versions", str(task.versions))
    updates, wire = summary.total.updates, summary.total.bytes
    table.add_row(
        "updates",
        f"{updates.complete} complete, {updates.partial} partial, {updates.lost} lost",
    )
    table.add_row("on the wire", f"{wire.up.wire / 1e6:.2f} MB up, {wire.down.wire / 1e6:.2f} down")
    if (periods := summary.periods) is not None:
        table.add_row("local periods", _periods(periods))
    if (contacts := summary.contacts) is not None:
        table.add_row(
            "contacts",
            f"{contacts.used} used; {contacts.acknowledged} of {contacts.sent} updates acknowledged "
            f"in theirs, {contacts.covered_acknowledged} of {contacts.covered} where contact lasted "
            f"as counted on; {contacts.mean_energy_j or 0:.3g} J each"
            + ("" if contacts.allowance_j is None else f", {contacts.allowance_j:g} allowed"),
        )
    if (rounds := summary.sp_fl) is not None:
        table.add_row(
            f"loss {rounds.loss}",
            f"{rounds.rounds} rounds; signs {_arrived(rounds.sign)}, "
            f"moduli given the signs {_arrived(rounds.modulus)}",
        )
    if (planned := summary.rounds) is not None:
        table.add_row(
            "rounds",
            f"{planned.power_control}: planned {planned.planned_j:.3g} J in {planned.planned_s:.3g} s, "
            f"measured {planned.measured_j:.3g} J in {planned.measured_s:.3g} s; "
            f"ended: {planned.stop_reason}",
        )
    for title, text in link_rows(summary):
        table.add_row(title, Text(text))
    if summary.total.resume_p95_ms is not None:
        table.add_row("resumption", f"95 % within {summary.total.resume_p95_ms:.1f} ms")
    table.add_row("link updates", f"99 % within {summary.lateness.p99_ms:.2f} ms of their time")
    table.add_row("report", str(run_dir / "report.html"))
    console.print(table)
    verdict = "[green]VALID[/]" if summary.valid else "[red]NOT VALID[/]"
    console.print(verdict)
    for reason in summary.invalid_reasons:
        console.print(f"  {reason}", markup=False)


def _periods(periods: Periods) -> str:
    ended = sum(task.periods.ended for task in periods.tasks.values())
    modelled_j, metered_j = (
        one.compute + one.uplink + one.downlink for one in (periods.modelled, periods.metered)
    )
    return (
        f"{ended} ended, energy {modelled_j:.3g} J modelled, {metered_j:.3g} J metered; "
        f"{periods.overruns} of {periods.trainings} trainings longer than emulated"
    )


def _arrived(arrivals: ClassArrivals) -> str:
    if arrivals.empirical is None or arrivals.predicted is None:
        return "none"
    return f"{100 * arrivals.empirical:.0f} % arrived, {100 * arrivals.predicted:.0f} % predicted"


def _reached(task: TaskResult) -> str:
    unit = f" {task.unit}" if task.unit else ""
    remarks = [f"best {task.best:.3f}{unit}"]
    if task.baseline is not None:
        remarks.append(f"{task.baseline.name} {task.baseline.value:.3f}{unit}")
    return f"{task.metric} {task.final:.3f}{unit} ({', '.join(remarks)})"
