"""Programs of the user: forked early, started later, each in a network of its own."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import Channel, Child, Family, fork_child
from fadelab_emulation.namespaces import NetworkNamespace
from fadelab_proto.clock import Clock

_LISTENING = "0A"
_LOOK_EVERY_S = 0.01
_SOCKET_TABLES = ("/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6")


@dataclass(frozen=True, slots=True)
class Program:
    """What is to be executed."""

    name: str
    """What messages call it."""
    command: Sequence[str]
    environment: Mapping[str, str]
    """Variables besides those of this process."""
    namespace: NetworkNamespace | None
    """Where it lives; None: where this process does."""
    reads_stdin: bool

    def fork(self) -> Child:
        """Return a process that waits for :func:`start` to become the program.

        To be called before this process has threads.
        """
        child = fork_child(self.name, self._become)
        # Both sides do it, so that it has happened when either goes on.
        os.setpgid(child.pid, child.pid)
        return child

    def _become(self, channel: Channel) -> None:
        os.setpgid(0, 0)
        if self.namespace is not None:
            self.namespace.enter()
        if not self.reads_stdin:
            with Path(os.devnull).open() as nothing:
                os.dup2(nothing.fileno(), sys.stdin.fileno())
        # Python ignores these two; a program expects them as they were (as subprocess does).
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if channel.receive() is None:
            return
        try:
            os.execvpe(self.command[0], list(self.command), os.environ | self.environment)  # noqa: S606
        except OSError as error:
            raise FadelabError(
                ExitCode.USAGE, f"cannot start {self.command[0]}: {error.strerror}"
            ) from None


def check_program(command: Sequence[str]) -> None:
    """Raise FadelabError (USAGE) unless there is such a program."""
    if not command:
        raise FadelabError(ExitCode.USAGE, "a program to run is missing")
    if shutil.which(command[0]) is None:
        raise FadelabError(ExitCode.USAGE, f"there is no program {command[0]!r}")


def start(child: Child) -> None:
    """Let a forked program begin."""
    child.channel.send(go=True)


def signal_group(child: Child, number: signal.Signals) -> None:
    """Send a signal to a program and what it started, as a terminal does."""
    if child.exit_code is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def shell_code(exit_code: int) -> int:
    """Return an exit code as a shell shows it: 128 and the number for the end by a signal."""
    return exit_code if exit_code >= 0 else 128 - exit_code


def check_started(child: Child) -> None:
    """Raise FadelabError if a program that has ended was never begun, in the kernel's words."""
    for message in child.channel.drain():
        if "failed" in message:
            sentence = str(message["failed"]).removeprefix(f"{child.name}: ")
            raise FadelabError(ExitCode(int(str(message["code"]))), sentence)


async def listening(port: int, server: Child, family: Family, clock: Clock) -> None:
    """Return once a TCP socket of this network listens on ``port``.

    The kernel tells nobody when a socket begins to listen, and a trial connection would be taken
    for a client; so its table is looked at a hundred times a second, and the program's end ends
    the waiting at once.

    Raises:
        FadelabError: COMPONENT_FAILED, if the program ends before.

    """
    ended = asyncio.create_task(family.ended(server))
    try:
        while not _listens(port):
            if ended.done():
                check_started(server)
                raise FadelabError(
                    ExitCode.COMPONENT_FAILED,
                    f"the server ended with exit code {shell_code(ended.result())} before it "
                    f"listened on port {port}",
                )
            pause = asyncio.create_task(clock.sleep_until(clock.now_s() + _LOOK_EVERY_S))
            await asyncio.wait((ended, pause), return_when=asyncio.FIRST_COMPLETED)
            pause.cancel()
    finally:
        ended.cancel()


def _listens(port: int) -> bool:
    for table in _SOCKET_TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                return True
    return False
