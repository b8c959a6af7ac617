"""``fadelab emulate``: links of containers, network namespaces and interfaces of others."""

from pathlib import Path
from typing import Annotated

import typer

from fadelab.emulate.config import load_emulation
from fadelab.emulate.process import run_emulation
from fadelab.exit_codes import ExitCode


def emulate(
    config: Annotated[Path, typer.Argument(help="YAML file; see docs/emulate.md.")],
) -> None:
    """Drive links between containers or namespaces, or shape interfaces that exist.

    Runs until the file's duration_s is over, or SIGTERM or Ctrl-C; then everything is removed.

    Example: fadelab emulate emulation.yaml
    """
    file = load_emulation(config)
    if not run_emulation(file, typer.echo):
        raise typer.Exit(ExitCode.INTERRUPTED)
