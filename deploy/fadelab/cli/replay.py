"""``fadelab replay``: do a DMA-FL run's aggregations once more."""

from pathlib import Path
from typing import Annotated

import typer

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.reproduced import reproduced


def replay(
    run_dir: Annotated[Path, typer.Argument(help="Run directory of an experiment with dma_fl.")],
) -> None:
    """Make every model of a run again, from its event log and its journal, and compare the bits.

    Example: fadelab replay runs/dma-fl-quick-1
    """
    wrong = []
    for task, found in reproduced(run_dir):
        if found.different:
            wrong.append(f"{task}: {len(found.different)} versions, first {found.different[0]}")
        typer.echo(
            f"{task}: {found.versions - len(found.different)} of {found.versions} versions "
            f"reproduced bit for bit; largest staleness {found.staleness}"
        )
    if wrong:
        raise FadelabError(
            ExitCode.INVALID_RUN, "the log leads to other models than the run: " + "; ".join(wrong)
        )
