"""``fadelab run`` and ``fadelab report``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fadelab.cli.links_outcome import link_rows
from fadelab.cli.view import RunView
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import load_experiment
from fadelab.local.launch import new_run_dir
from fadelab.local.plan import LinksOfRun
from fadelab.local.run import finish, run_locally
from fadelab.results.schema import Summary, TaskResult
from fadelab_proto.codecs import AccelerationError, accelerate

RUNS = Path("runs")
"""Where run directories go that have no other name."""


def run(
    experiment: Annotated[Path, typer.Argument(help="The experiment file (YAML).")],
    out: Annotated[
        Path | None, typer.Option(help="Run directory; must not exist. Default: runs/NAME-1, ...")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key.path=value: replace or add a setting; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replace the experiment's seed.")] = None,
) -> None:
    """Run an experiment on this machine and write its report.

    Example: fadelab run examples/quickstart.yaml --set devices.count=20
    """
    checked = load_experiment(experiment, settings or [], seed=seed)
    # First of all, so that a machine that cannot do it leaves no empty folder.
    links = LinksOfRun.choose(checked)
    if checked.transport.accelerate:
        _accelerate()
    run_dir = make_run_dir(out) if out is not None else new_run_dir(RUNS, checked.name)
    console = Console()
    view = RunView(checked, console)
    view.chosen(links.choice)
    try:
        finished = run_locally(checked, links, run_dir.absolute(), view)
    finally:
        view.close()
    if finished.failure is None or finished.summary.start_up.all_joined_s > 0:
        show_summary(console, run_dir, finished.summary)
    if finished.failure is not None:
        raise finished.failure
    raise typer.Exit(finished.exit_code)


def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
) -> None:
    """Compute summary.json and report.html of a run again.

    Example: fadelab report runs/quickstart-1
    """
    summary = finish(run_dir)
    show_summary(Console(), run_dir, summary)
    raise typer.Exit(ExitCode.VALID if summary.valid else ExitCode.INVALID_RUN)


def _accelerate() -> None:
    """Load the compiled kernels here, so that the run's processes have them when they are forked."""
    try:
        accelerate()
    except AccelerationError as error:
        raise FadelabError(ExitCode.ENVIRONMENT, str(error)) from None


def make_run_dir(folder: Path) -> Path:
    """Make the run directory that the user has named; FadelabError: USAGE."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FadelabError(
            ExitCode.USAGE, f"--out {folder}: it exists already; runs are never overwritten"
        ) from None
    except OSError as error:
        raise FadelabError(
            ExitCode.USAGE, f"--out {folder}: cannot make it: {error.strerror}"
        ) from None
    return folder


def show_summary(console: Console, run_dir: Path, summary: Summary) -> None:
    """Print what a run found, and its verdict."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, task in summary.tasks.items():
        if task.final is not None and task.best is not None:
            table.add_row(name, _reached(task))
        table.add_row("versions", str(task.versions))
    updates, wire = summary.total.updates, summary.total.bytes
    table.add_row(
        "updates",
        f"{updates.complete} complete, {updates.partial} partial, {updates.lost} lost",
    )
    table.add_row("on the wire", f"{wire.up.wire / 1e6:.2f} MB up, {wire.down.wire / 1e6:.2f} down")
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


def _reached(task: TaskResult) -> str:
    unit = f" {task.unit}" if task.unit else ""
    remarks = [f"best {task.best:.3f}{unit}"]
    if task.baseline is not None:
        remarks.append(f"{task.baseline.name} {task.baseline.value:.3f}{unit}")
    return f"{task.metric} {task.final:.3f}{unit} ({', '.join(remarks)})"
