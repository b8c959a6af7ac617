"""``fadelab stack`` and ``fadelab collect``: a testbed that spans machines, and its record."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from fadelab.exit_codes import FadelabError
from fadelab.experiment import load_experiment
from fadelab.local.children import exit_code_of
from fadelab.stack.collect import collect_run
from fadelab.stack.write import Kind, write_stack


def stack(
    experiment: Annotated[Path, typer.Argument(help="The experiment file (YAML).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to be made for the files.")],
    *,
    kind: Annotated[Kind, typer.Option(help="Who runs the containers.")] = Kind.SWARM,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key.path=value: replace or add a setting; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replace the experiment's seed.")] = None,
    tag: Annotated[
        str | None, typer.Option(help="Tag of the images; left out: Fadelab's version.")
    ] = None,
    registry: Annotated[
        str, typer.Option(help="Where nodes get the images, such as registry.lab:5000.")
    ] = "",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until certificates expire.")] = 7,
) -> None:
    """Write a testbed for Docker Swarm or Kubernetes: one experiment on several machines.

    Example: fadelab stack examples/quickstart.yaml -o testbed --registry registry.lab:5000
    """
    checked = load_experiment(experiment, settings or [], seed=seed)
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    try:
        written = write_stack(
            checked, out, kind, tag=tag or version("fadelab"), registry=prefix, days=days
        )
    except Exception as error:
        code = exit_code_of(error)
        if code is None or isinstance(error, FadelabError):
            raise
        raise FadelabError(code, str(error)) from None
    typer.echo(f"{written}: a server, {checked.devices.count} agents, an emulator on every node")


def collect(
    testbed: Annotated[Path, typer.Argument(help="The folder that `fadelab stack` made.")],
    nodes: Annotated[
        list[Path], typer.Argument(help="A folder for each node: a copy of its /out.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Run directory to be made.")],
) -> None:
    """Put the records of all nodes together into a run directory, for `fadelab report`.

    Example: fadelab collect testbed node1 node2 -o runs/cluster-1
    """
    kept = collect_run(testbed, nodes, out)
    for line in kept:
        typer.echo(line)
