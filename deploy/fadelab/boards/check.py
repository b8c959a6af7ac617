"""Reaching every board and saying what it is, what it has, and what it lacks."""

import asyncio
from dataclasses import dataclass

from fadelab.boards.clock_offset import ClockOffset, measure_offset
from fadelab.boards.facts import BoardFacts, ask_facts, problems
from fadelab.boards.ssh import Board, BoardError, Fleet


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found out about one board."""

    name: str
    facts: BoardFacts | None
    """None if it could not be asked."""
    offset: ClockOffset | None
    problems: list[str]
    """Sentences; none if the board can take part in a run."""


async def check_boards(fleet: Fleet) -> list[Checked]:
    """Ask all boards at the same time."""
    failures = await fleet.connect()
    return list(
        await asyncio.gather(
            *(
                _refused(board, failure) if failure is not None else _check(board)
                for board, failure in zip(fleet.boards, failures, strict=True)
            )
        )
    )


async def _refused(board: Board, failure: BoardError) -> Checked:
    return Checked(board.name, None, None, [str(failure)])


async def _check(board: Board) -> Checked:
    try:
        facts = await ask_facts(board)
        offset = await measure_offset(board)
    except BoardError as error:
        return Checked(board.name, None, None, [str(error)])
    return Checked(board.name, facts, offset, problems(board, facts))
