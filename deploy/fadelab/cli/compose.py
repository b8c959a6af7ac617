"""``fadelab compose``: a testbed of containers from an experiment file."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from fadelab.compose.write import write_testbed
from fadelab.exit_codes import FadelabError
from fadelab.experiment import load_experiment
from fadelab.local.children import exit_code_of


def compose(
    experiment: Annotated[Path, typer.Argument(help="The experiment file (YAML).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to be made for the files.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key.path=value: replace or add a setting; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replace the experiment's seed.")] = None,
    tag: Annotated[
        str | None, typer.Option(help="Tag of the images; left out: Fadelab's version.")
    ] = None,
) -> None:
    """Write the files of a testbed of containers, for `docker compose up` or docker-compose 1.29.

    Example: fadelab compose examples/quickstart.yaml -o testbed
    """
    checked = load_experiment(experiment, settings or [], seed=seed)
    try:
        testbed = write_testbed(checked, out, tag or version("fadelab"))
    except Exception as error:
        code = exit_code_of(error)
        if code is None or isinstance(error, FadelabError):
            raise
        raise FadelabError(code, str(error)) from None
    typer.echo(f"{out}/compose.yaml: a server, an emulator and {testbed.agents} agents")
