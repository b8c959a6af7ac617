"""``fadelab run`` and ``fadelab report``."""

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fadelab.cli.view import RunView
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import Experiment, load_experiment
from fadelab.folders import made
from fadelab.follow import Finished, finish
from fadelab.local.launch import new_run_dir
from fadelab.local.plan import LinksOfRun
from fadelab.local.run import run_locally
from fadelab_proto import collector
from fadelab_proto.codecs import AccelerationError, accelerate


class Where(StrEnum):
    """Where a run's processes are to be."""

    LOCAL = "local"
    COMPOSE = "compose"
    BOARDS = "boards"


_RUNS = Path("runs")


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
    *,
    deploy: Annotated[
        Where,
        typer.Option(
            help="Where its processes are: as they are on this machine, in containers of "
            "this machine, or on boards."
        ),
    ] = Where.LOCAL,
    inventory: Annotated[
        Path | None,
        typer.Option(help="The boards of --deploy boards (YAML); see docs/boards.md."),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(help="Tag of the images of containers; left out: those of this version."),
    ] = None,
) -> None:
    """Run an experiment and write its report.

    Example: fadelab run examples/quickstart.yaml --set devices.count=20
    """
    command_mono_s = time.monotonic()
    checked = load_experiment(experiment, settings or [], seed=seed)
    console = Console()
    view = RunView(checked, console)

    def run_dir() -> Path:
        folder = _make_run_dir(out) if out is not None else new_run_dir(_RUNS, checked.name)
        return folder.absolute()

    if tag is not None and deploy is not Where.COMPOSE:
        raise FadelabError(ExitCode.USAGE, "--tag is for containers: give --deploy compose as well")
    if (inventory is None) is (deploy is Where.BOARDS):
        raise FadelabError(ExitCode.USAGE, "--deploy boards and --inventory FILE go together")
    try:
        match deploy:
            case Where.LOCAL:
                finished = _locally(checked, run_dir, view)
            case Where.COMPOSE:
                finished = _in_containers(checked, run_dir, view, tag, command_mono_s)
            case Where.BOARDS:
                assert inventory is not None
                finished = _on_boards(checked, inventory, run_dir, view)
    finally:
        view.close()
    _end(console, finished)


def _locally(experiment: Experiment, run_dir: Callable[[], Path], view: RunView) -> Finished:
    # First of all, so that a machine that cannot do it leaves no empty folder.
    links = LinksOfRun.choose(experiment)
    if experiment.transport.accelerate:
        _accelerate()
    view.links(links.choice.variant, links.choice.why)
    return run_locally(experiment, links, run_dir(), view)


def _in_containers(
    experiment: Experiment,
    run_dir: Callable[[], Path],
    view: RunView,
    tag: str | None,
    command_mono_s: float,
) -> Finished:
    with collector.importing():
        # Only here are they needed, and they take a while to import.
        from fadelab.compose.run import Docker, run_in_containers  # noqa: PLC0415
        from fadelab.images.ready import images_for_run  # noqa: PLC0415

    docker = Docker()
    for left in docker.remove_leftovers():
        typer.echo(f"removed {left}, whose launcher was killed")
    images = images_for_run(tag, typer.echo)
    return run_in_containers(
        experiment, docker, run_dir(), view, tag=images, command_mono_s=command_mono_s
    )


def _on_boards(
    experiment: Experiment, inventory: Path, run_dir: Callable[[], Path], view: RunView
) -> Finished:
    """Run an experiment on boards; nothing is made before it is known to fit them."""
    with collector.importing():
        # Only here are they needed, and they take a while to import.
        from fadelab.boards.files import check_fit  # noqa: PLC0415
        from fadelab.boards.inventory import load_inventory  # noqa: PLC0415
        from fadelab.boards.run import run_on_boards  # noqa: PLC0415

    lab = load_inventory(inventory)
    check_fit(experiment, lab)
    return run_on_boards(experiment, lab, run_dir(), view, typer.echo)


def _end(console: Console, finished: Finished) -> None:
    # No run has to wait for it before it begins.
    from fadelab.cli.summary import show_summary  # noqa: PLC0415

    if finished.failure is None or finished.summary.start_up.all_joined_s > 0:
        show_summary(console, finished.run_dir, finished.summary)
    if finished.failure is not None:
        raise finished.failure
    raise typer.Exit(finished.exit_code)


def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
) -> None:
    """Compute summary.json and report.html of a run again.

    Example: fadelab report runs/quickstart-1
    """
    from fadelab.cli.summary import show_summary  # noqa: PLC0415 -- no run has to wait for it

    summary = finish(run_dir)
    show_summary(Console(), run_dir, summary)
    raise typer.Exit(ExitCode.VALID if summary.valid else ExitCode.INVALID_RUN)


def _accelerate() -> None:
    """Load the compiled kernels here, so that the run's processes have them when they are forked."""
    try:
        accelerate()
    except AccelerationError as error:
        raise FadelabError(ExitCode.ENVIRONMENT, str(error)) from None


def _make_run_dir(folder: Path) -> Path:
    """Make the run directory that the user has named; FadelabError: USAGE."""
    with made(f"--out {folder}", "runs are never overwritten"):
        folder.mkdir(parents=True)
    return folder
