"""``fadelab doctor`` and ``fadelab link``: what this machine and its links can do."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fadelab.exit_codes import ExitCode
from fadelab.local.calibrate import calibrate as measure
from fadelab.local.launch import remove_dead_sockets_dirs
from fadelab.local.probe import diagnose

link = typer.Typer(help="Shaped links on their own.", no_args_is_help=True)

# Below this a link or the transport wastes time; above it a link is faster than it was told.
_GOOD_RATIOS = (0.93, 0.957)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine can do, and whether an earlier run left something behind.

    Example: fadelab doctor
    """
    diagnosis = diagnose()
    removed = remove_dead_sockets_dirs()
    if as_json:
        typer.echo(json.dumps(diagnosis.as_json(), indent=2))
    else:
        console = Console()
        for finding in diagnosis.findings:
            mark = "[green]ok[/]  " if finding.good else "[red]no[/]  "
            console.print(f"{mark}{finding.name}: ", end="")
            console.print(finding.detail, markup=False, highlight=False)
        for item in diagnosis.leftovers:
            console.print(f"[yellow]left behind[/]  {item}", highlight=False)
        for folder in removed:
            console.print(f"[dim]removed[/]  {folder}, the sockets of a killed run")
        if not diagnosis.leftovers:
            console.print(
                "[green]ok[/]  nothing left behind: no namespace, link, qdisc, process or mount"
            )
    if not diagnosis.can_run:
        raise typer.Exit(ExitCode.ENVIRONMENT)
    if diagnosis.leftovers:
        raise typer.Exit(ExitCode.LEFTOVERS)


@link.command()
def calibrate(
    rates_mbps: Annotated[
        str, typer.Option(help="Programmed rates in Mbit/s, one link each, all at once.")
    ] = "0.2,1,5,20,50",
    megabytes: Annotated[float, typer.Option(help="Size of each update in MB.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send updates over links of fixed rates and compare goodput with the programme.

    Example: fadelab link calibrate --rates-mbps 1,10 --megabytes 1
    """
    rates_bps = _rates_bps(rates_mbps)
    if not 0.01 <= megabytes <= 1000:
        raise typer.BadParameter(f"{megabytes:g} MB is not between 0.01 and 1000")
    results = measure(rates_bps, round(1e6 * megabytes))
    low, high = _GOOD_RATIOS
    if as_json:
        rows = [
            {
                "programmed_bps": r.programmed_bps,
                "goodput_bps": r.goodput_bps,
                "ratio": r.ratio,
                "seconds": r.seconds,
                "update_bytes": r.update_bytes,
            }
            for r in results
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        table = Table(box=None, header_style="dim")
        for title in ("programmed Mbit/s", "goodput Mbit/s", "ratio", "seconds", ""):
            table.add_column(title, justify="right")
        for r in results:
            good = low <= r.ratio <= high
            table.add_row(
                f"{r.programmed_bps / 1e6:g}",
                f"{r.goodput_bps / 1e6:.4f}",
                f"{r.ratio:.4f}",
                f"{r.seconds:.2f}",
                "[green]ok[/]" if good else "[red]off[/]",
            )
        Console().print(table)
    if not all(low <= r.ratio <= high for r in results):
        raise typer.Exit(ExitCode.INVALID_RUN)


def _rates_bps(text: str) -> list[float]:
    try:
        rates = [1e6 * float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.2,1,5") from None
    for rate in rates:
        if not 64e3 <= rate <= 10e9:
            raise typer.BadParameter(f"{rate / 1e6:g} Mbit/s is not between 0.064 and 10000")
    return rates
