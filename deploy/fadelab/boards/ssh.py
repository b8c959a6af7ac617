"""Commands on a board, by the machine's own OpenSSH client.

Not a library: whatever stands in a user's ssh_config (jump hosts, agents, hardware keys) works, and
nothing is linked in. One connection (``ssh -M``) carries everything; its end is the board's end.
"""

import asyncio
import contextlib
import shutil
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fadelab.boards.inventory import BoardConfig, DeviceProfile, Inventory
from fadelab.exit_codes import ExitCode, FadelabError

_READY = "ready"
_CONNECT_S = 10
# Three unanswered probes, five seconds apart: a board that vanished is noticed within 20 s.
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(_CONNECT_S),
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "LogLevel": "ERROR",
    "RequestTTY": "no",
    "StreamLocalBindUnlink": "yes",
}
_BROKEN = 255
"""How ssh ends when it is not the command that failed (ssh(1), EXIT STATUS)."""
_LONGEST_WORDS = 300


class BoardError(Exception):
    """A board cannot be reached, or a command on it failed; one sentence that names it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a finished command said."""

    code: int
    output: bytes
    words: str
    """The end of its standard error."""


class Board:
    """One board while the command lasts.

    Args:
        inventory: where it stands.
        device: its device number.
        sockets: folder for sockets of this machine, with a short path.

    """

    def __init__(self, inventory: Inventory, device: int, sockets: Path) -> None:
        self.config: BoardConfig = inventory.boards[device]
        self.profile: DeviceProfile = inventory.profile(self.config)
        self.device = device
        self._control = sockets / f"ssh-{device}"
        self._sockets = sockets
        self._known_hosts = inventory.known_hosts
        self._master: Process | None = None

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.config.name

    async def connect(self) -> None:
        """Open the connection that everything else uses. Raises BoardError."""
        # Says a word when it is there, and lives until its input is closed.
        command = [*self._ssh("-M", "-S", str(self._control)), f"echo {_READY}; cat >/dev/null"]
        self._master = await _start(command)
        assert self._master.stdout is not None
        try:
            line = await asyncio.wait_for(self._master.stdout.readline(), 2 * _CONNECT_S)
        except TimeoutError:
            await self.close()
            raise BoardError(f"the board {self.name} does not answer") from None
        if line.strip() != _READY.encode():
            words = await _last_words(self._master)
            await self._master.wait()
            raise BoardError(f"the board {self.name} cannot be reached: {words or 'no word why'}")

    async def gone(self) -> None:
        """Return when the connection has ended."""
        assert self._master is not None
        await self._master.wait()

    async def run(self, command: str, data: bytes = b"", *, patience_s: float = 60.0) -> Answer:
        """Carry out a command of the board's shell; its exit code may be any.

        Raises:
            BoardError: if the board is gone, or takes longer than ``patience_s``.

        """
        process = await self.start(command)
        try:
            output, words = await asyncio.wait_for(process.communicate(data), patience_s)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise BoardError(
                f"the board {self.name} did not finish within {patience_s:g} s: {command}"
            ) from None
        assert process.returncode is not None
        if process.returncode == _BROKEN:
            raise BoardError(f"the connection to the board {self.name} broke: {_tail(words)}")
        return Answer(process.returncode, output, _tail(words))

    async def must(self, command: str, data: bytes = b"", *, patience_s: float = 60.0) -> bytes:
        """Carry out a command that has to succeed and return its output. Raises BoardError."""
        answer = await self.run(command, data, patience_s=patience_s)
        if answer.code != 0:
            raise BoardError(
                f"the board {self.name} failed ({answer.code}) at `{command}`: {answer.words}"
            )
        return answer.output

    async def start(self, command: str) -> Process:
        """Start a command and return ssh's process, whose pipes are the command's."""
        return await _start([*self._ssh("-S", str(self._control)), command])

    async def forward(self, remote: str) -> Path:
        """Return a socket of this machine that leads to one of the board's. Raises BoardError."""
        local = self._sockets / f"far-{self.device}"
        *options, host = self._ssh("-S", str(self._control), "-O", "forward")
        process = await _start([*options, "-L", f"{local}:{remote}", host])
        _, words = await process.communicate()
        if process.returncode != 0:
            raise BoardError(f"the board {self.name} forwards no sockets: {_tail(words)}")
        return local

    async def close(self) -> None:
        """End the connection, and with it what hangs on it."""
        if self._master is None or self._master.returncode is not None:
            return
        assert self._master.stdin is not None
        self._master.stdin.close()
        try:
            await asyncio.wait_for(self._master.wait(), _CONNECT_S / 2)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._master.kill()
            await self._master.wait()

    def _ssh(self, *more: str) -> list[str]:
        config = self.config
        program = shutil.which("ssh")
        if program is None:
            raise FadelabError(
                ExitCode.ENVIRONMENT, "there is no `ssh` command: install the OpenSSH client"
            )
        command = [program, *more]
        options = dict(_OPTIONS)
        if self._known_hosts is not None:
            options["UserKnownHostsFile"] = f'"{self._known_hosts}"'
        if config.identity is not None:
            command += ["-i", str(config.identity)]
            options["IdentitiesOnly"] = "yes"
        for key, value in options.items():
            command += ["-o", f"{key}={value}"]
        if config.port is not None:
            command += ["-p", str(config.port)]
        if config.user is not None:
            command += ["-l", config.user]
        return [*command, config.host]


class Fleet:
    """All boards of an inventory, connected at the same time."""

    def __init__(self, inventory: Inventory, sockets: Path) -> None:
        self.inventory = inventory
        self.boards = [Board(inventory, device, sockets) for device in range(len(inventory.boards))]

    async def connect(self) -> list[BoardError | None]:
        """Connect to all; return what went wrong with each."""
        found = await asyncio.gather(
            *(board.connect() for board in self.boards), return_exceptions=True
        )
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, BoardError):
                raise one
        return [one if isinstance(one, BoardError) else None for one in found]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(board.close() for board in self.boards))


async def _start(command: list[str]) -> Process:
    # A session of its own: Ctrl-C in the terminal reaches the command alone, which ends the rest.
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )


async def _last_words(process: Process) -> str:
    assert process.stderr is not None
    return _tail(await process.stderr.read())


def _tail(words: bytes) -> str:
    return " ".join(words.decode(errors="replace").split())[-_LONGEST_WORDS:]
