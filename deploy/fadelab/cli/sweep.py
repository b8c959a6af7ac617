"""``fadelab sweep``: many runs of one experiment."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.report.units import plural
from fadelab.results.schema import Summary
from fadelab.sweep.child import Work
from fadelab.sweep.execute import SweepExecution, resume_state
from fadelab.sweep.load import cores, default_jobs
from fadelab.sweep.plan import SweepPlan, load_plan
from fadelab.sweep.record import (
    FILE_NAME,
    RunEntry,
    SweepFolder,
    locked,
    new_record,
    read_record,
)
from fadelab_proto import collector
from fadelab_proto.clock import SystemClock

_SWEEPS = Path("sweeps")
_WHAT_RUNS_NEED = (
    "fadelab.cli.run",
    "fadelab.cli.summary",
    "fadelab.report.from_record",
    "fadelab.results.compute",
    "fadelab_agent.agent",
    "fadelab_agent.validator",
    "fadelab_agent.workbench",
    "fadelab_server.app",
)
_STYLES = {"valid": "green", "invalid": "red", "failed": "red", "refused": "red"}


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep file (YAML); see docs/sweeps.md.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of all runs. Default: sweeps/NAME")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once. Default: one for every two cores, or fewer."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a sweep: valid runs are not repeated.")
    ] = False,
) -> None:
    """Run every grid point, variant and seed of a sweep file.

    Example: fadelab sweep examples/sweep-codecs.yaml --resume
    """
    plan = load_plan(file)
    path = (out if out is not None else _SWEEPS / plan.name).absolute()
    _make(path, resume=resume)
    console = Console()
    with locked(path):
        folder = _open(path, plan, console)
        at_once = jobs if jobs is not None else default_jobs(plan.runs, cores())
        view = SweepView(console, len(plan.runs))
        execution = SweepExecution(
            folder,
            plan.runs,
            attempts=plan.attempts,
            jobs=at_once,
            clock=SystemClock(),
            observer=view,
            maker=_run_of,
        )
        import_once()
        view.begin(plan, execution, at_once)
        finished = asyncio.run(execution.run())
    view.finish(folder.entries, path)
    if not finished:
        raise FadelabError(
            ExitCode.INTERRUPTED, f"interrupted; `fadelab sweep {file} --resume` goes on"
        )
    if any(entry.state != "valid" for entry in folder.entries):
        raise typer.Exit(ExitCode.INVALID_RUN)


def _run_of(experiment: Path, run_dir: Path) -> Work:
    """Return `fadelab run` of one experiment."""

    def work() -> None:
        # Only a run needs it, and it imports this module.
        from fadelab.cli import main  # noqa: PLC0415

        # The run's manifest names the command as well.
        sys.argv[1:] = ["run", str(experiment), "--out", str(run_dir)]
        main()

    return work


def import_once() -> None:
    """Import here what every run would import in its own process; it takes seconds.

    The collector is kept from all of it, in the runs' processes as well: to look at torch's objects
    would take an emulator hundreds of milliseconds, by which its links would be late.
    """
    with collector.importing():
        for module in _WHAT_RUNS_NEED:
            # What is missing, the runs say better.
            with contextlib.suppress(ModuleNotFoundError):
                import_module(module)


class SweepView:
    """What a sweep says while it goes on: a line for every run that has ended."""

    def __init__(self, console: Console, runs: int) -> None:
        self._console = console
        self._runs = runs

    def begin(self, plan: SweepPlan, execution: SweepExecution, jobs: int) -> None:
        """Say what there is to do, and how long it may take."""
        points = len({run.point for run in plan.runs})
        due = len(execution.due)
        self._say(
            f"{plan.name}: {plural(self._runs, 'run')} ({plural(len(plan.variants), 'variant')}, "
            f"{plural(points, 'grid point')}, {plural(len(plan.seeds), 'seed')})"
        )
        done = self._runs - due
        self._say(
            (f"{done} need no run any more; " if done else "")
            + f"{due} to run, {jobs} at a time: about {duration(execution.left_s)}"
        )

    def ended(
        self, entry: RunEntry, summary: Summary | None, *, again: bool, to_go: int, left_s: float
    ) -> None:
        """Say what became of a run, and what is still to do."""
        line = Text(f"[{self._runs - to_go:>{len(str(self._runs))}}/{self._runs}] {entry.name}  ")
        line.append(entry.state, style=_STYLES.get(entry.state, "yellow"))
        for name, task in (summary.tasks if summary is not None else {}).items():
            if task.final is not None and entry.state in ("valid", "invalid"):
                line.append(f"  {name} {task.metric} {task.final:.3f}")
        line.append(f"  {entry.wall_s or 0:.0f} s")
        line.append(f"   {to_go} to go, about {duration(left_s)}" if to_go else "", style="dim")
        self._console.print(line, soft_wrap=True)
        for reason in entry.reasons[:3]:
            self._say(f"    {reason}")
        if again:
            self._say("    it is made again")

    def finish(self, entries: Sequence[RunEntry], path: Path) -> None:
        """Say how many runs are valid, and name all others."""
        others = [entry for entry in entries if entry.state != "valid"]
        self._say(f"{len(entries) - len(others)} of {len(entries)} runs are valid, in {path}")
        for entry in others:
            reason = entry.reasons[0] if entry.reasons else "not made yet"
            attempts = f" after {entry.attempts} attempts" if entry.attempts else ""
            self._say(f"  {entry.name}: {entry.state}{attempts}: {reason}")
        self._say(f"compare them: fadelab compare {path}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Write a time span as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _make(path: Path, *, resume: bool) -> None:
    """Make the sweep's folder, or see that it may be gone on with."""
    if path.exists() and not resume:
        raise FadelabError(
            ExitCode.USAGE,
            f"{path}: it exists already; go on with it by --resume, or name another with --out",
        )
    if path.exists() and not (path / FILE_NAME).exists() and any(path.iterdir()):
        raise FadelabError(ExitCode.USAGE, f"{path} is not the folder of a sweep")
    try:
        for name in ("runs", "experiments", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"cannot make {path}: {error.strerror}") from None


def _open(path: Path, plan: SweepPlan, console: Console) -> SweepFolder:
    """Return the folder with its record, brought up to what an earlier call has left."""
    earlier = read_record(path).runs if (path / FILE_NAME).exists() else []
    folder = SweepFolder(path, new_record(plan))
    resume_state(folder, plan.runs, earlier)
    folder.write()
    planned = {run.name for run in plan.runs}
    strangers = [entry.name for entry in earlier if entry.name not in planned]
    if strangers:
        console.print(
            f"{len(strangers)} earlier runs are not in {plan.file} any more and are left alone, "
            f"such as {strangers[0]}",
            markup=False,
            soft_wrap=True,
        )
    return folder
