"""Fetching a run's files after its end, from boards that were out of reach then."""

import asyncio
import json
import shlex
from pathlib import Path

from fadelab.boards.collect import collect_board, collected_before, merge
from fadelab.boards.facts import ask_facts
from fadelab.boards.files import Spot
from fadelab.boards.ssh import Board, BoardError, Fleet
from fadelab.exit_codes import ExitCode, FadelabError


async def collect_again(fleet: Fleet, run_dir: Path) -> list[str]:
    """Fetch what is still on boards, merge it; return a sentence for each board out of reach.

    Raises:
        FadelabError: USAGE, if the directory is of no run on these boards.

    """
    manifest = _manifest(run_dir)
    names = [board.name for board in fleet.boards]
    if manifest.get("boards") != names:
        raise FadelabError(
            ExitCode.USAGE, f"{run_dir} is of no run on the boards {', '.join(names)}"
        )
    run_id = int(str(manifest["run_id"]), 16)
    failures = await fleet.connect()
    found = [str(failure) for failure in failures if failure is not None]
    reached = [
        board for board, failure in zip(fleet.boards, failures, strict=True) if failure is None
    ]
    done = await asyncio.gather(*(_collect(board, run_id, run_dir) for board in reached))
    merge(run_dir, collected_before(run_dir, names))
    return found + [sentence for sentence in done if sentence]


async def _collect(board: Board, run_id: int, run_dir: Path) -> str:
    try:
        run = str(Spot.of(await ask_facts(board), run_id).run)
        if (await board.run(f"test -d {shlex.quote(run)}")).code != 0:
            return ""  # handed over already
        await collect_board(board, run, run_dir / "boards" / board.name)
        await board.must(f"rm -rf {shlex.quote(run)}")
    except BoardError as error:
        return str(error)
    return ""


def _manifest(run_dir: Path) -> dict[str, object]:
    try:
        manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FadelabError(ExitCode.USAGE, f"{run_dir} is not a run directory") from None
    assert isinstance(manifest, dict)
    return manifest
