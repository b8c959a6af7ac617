"""``fadelab doctor``: what this machine can do."""

import json
from typing import Annotated

import typer
from rich.console import Console

from fadelab.exit_codes import ExitCode
from fadelab.local.launch import remove_dead_sockets_dirs
from fadelab.local.probe import diagnose
from fadelab_emulation.attach.journal import remove_leftovers
from fadelab_emulation.sandbox import may_administer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine can do, and whether an earlier run left something behind.

    Example: fadelab doctor
    """
    undone = remove_leftovers() if may_administer() else []
    diagnosis = diagnose()
    removed = remove_dead_sockets_dirs()
    if as_json:
        typer.echo(json.dumps(diagnosis.as_json(), indent=2))
    else:
        console = Console()
        for finding in diagnosis.findings:
            colour = "red" if finding.needed else "yellow"
            mark = "[green]ok[/]  " if finding.good else f"[{colour}]no[/]  "
            console.print(f"{mark}{finding.name}: ", end="")
            console.print(finding.detail, markup=False, highlight=False)
        for item in diagnosis.leftovers:
            console.print(f"[yellow]left behind[/]  {item}", highlight=False)
        for folder in removed:
            console.print(f"[dim]removed[/]  {folder}, the sockets of a killed run")
        for item in undone:
            console.print(f"[dim]removed[/]  {item}, of a killed `fadelab emulate`")
        if not diagnosis.leftovers:
            console.print(
                "[green]ok[/]  nothing left behind: no namespace, link, qdisc, process or mount"
            )
    if not diagnosis.can_run:
        raise typer.Exit(ExitCode.ENVIRONMENT)
    if diagnosis.leftovers:
        raise typer.Exit(ExitCode.LEFTOVERS)
