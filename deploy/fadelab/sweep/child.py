"""One run of a sweep as a process of its own."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fadelab_emulation.linux import signal_on_parent_death

_LAST_WORDS_BYTES = 4000


def run_command(experiment: Path, run_dir: Path) -> list[str]:
    """Return the command that makes one run."""
    return [sys.executable, "-m", "fadelab", "run", str(experiment), "--out", str(run_dir)]


class RunProcess:
    """A command in a session of its own, which Ctrl-C in the terminal does not reach.

    It is asked to end when this process ends, however that happens. Must be made in the main
    thread, before this process starts any other.

    Args:
        command: program and arguments.
        log: file to which everything that it says is added.

    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as said:
            self._log_start = said.tell()
            self._process = subprocess.Popen(  # noqa: S603 -- the arguments are ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_end_with, os.getpid()),  # noqa: PLW1509 -- no other thread
            )
        self._descriptor = os.pidfd_open(self._process.pid)

    async def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        return self._process.wait()

    def stop(self) -> None:
        """Ask it to end in order; asked a second time, a run ends at once."""
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)

    def last_words(self) -> str | None:
        """Return the sentence with which it failed; None if it said none."""
        with self._log.open("rb") as said:
            end = said.seek(0, os.SEEK_END)
            said.seek(max(self._log_start, end - _LAST_WORDS_BYTES))
            lines = said.read().decode(errors="replace").splitlines()
        sentences = [line for line in lines if line.startswith("fadelab: ")]
        return sentences[-1].removeprefix("fadelab: ") if sentences else None


def _end_with(parent_pid: int) -> None:
    signal_on_parent_death(signal.SIGTERM)
    if os.getppid() != parent_pid:  # it died before the request was in force
        os._exit(1)
