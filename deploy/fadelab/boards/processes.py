"""Processes on a board: begun, watched and ended over SSH, whoever keeps them."""

import asyncio
import contextlib
from asyncio.subprocess import Process

from fadelab.boards.facts import BoardFacts, script_command
from fadelab.boards.inventory import Keeper
from fadelab.boards.push import root_prefix
from fadelab.boards.ssh import Board

_BEAT_S = 5.0
"""Between the signs of life that a board ends its processes without, see ``on_board.py``."""
_GRACE_S = 30.0
_INTERRUPTED = 130


class BoardProcess:
    """One process on a board."""

    def __init__(self, board: Board, what: str, process: Process) -> None:
        self.board = board
        self.what = what
        self._process = process
        self._watching = asyncio.create_task(self._watch())
        self._beating = asyncio.create_task(self._beat())
        self._words = ""
        self._asked = False

    @classmethod
    async def begin(
        cls, board: Board, facts: BoardFacts, *, unit: str, command: str, root: bool
    ) -> "BoardProcess":
        """Begin one.

        Args:
            board: where.
            facts: what it has told of itself.
            unit: of systemd, where that is who keeps processes.
            command: of the shell, where it is not.
            root: whether the command is to be root's.

        """
        prefix = root_prefix(facts)
        if board.profile.keeper is Keeper.SYSTEMD:
            # What the unit said last stands in the journal alone.
            words = f"{prefix}journalctl --unit {unit} --lines 5 --output cat >&2"
            begin = f"{prefix}systemctl start --wait {unit} || {{ {words}; false; }}"
            line = script_command(board, "keep", begin, f"{prefix}systemctl stop {unit}")
        else:
            line = (prefix if root else "") + script_command(board, "keep", command)
        return cls(board, unit.removesuffix(".service"), await board.start(line))

    async def ended(self) -> str:
        """Return how it ended, in words; empty if it was in good order."""
        code = await asyncio.shield(self._watching)
        if code == 0 or (self._asked and code == _INTERRUPTED):
            return ""
        who = f"{self.what} on the board {self.board.name}"
        if code is None:
            return f"{who} was lost: the connection broke"
        return f"{who} ended with exit code {code}: {self._words or 'no word why'}"

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._watching.done()

    async def end(self) -> None:
        """Have it end in order and wait for that, for a while."""
        self._asked = True
        self._close_input()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._watching), _GRACE_S)
        if not self._watching.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._watching

    async def _watch(self) -> int | None:
        """Read until the board says how the command ended; None if it cannot say so any more."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        errors = asyncio.create_task(self._process.stderr.read())
        code = None
        async for line in self._process.stdout:
            word, _, number = line.decode(errors="replace").strip().partition(" ")
            if word == "ended":
                code = int(number)
        self._words = " ".join((await errors).decode(errors="replace").split())[-400:]
        await self._process.wait()
        return code

    async def _beat(self) -> None:
        assert self._process.stdin is not None
        while not self._asked and not self._watching.done():
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(b"\n")
            await asyncio.wait({self._watching}, timeout=_BEAT_S)

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
