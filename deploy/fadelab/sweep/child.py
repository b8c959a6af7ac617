"""One run of a sweep as a process of its own, forked from the sweep's."""

import asyncio
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fadelab.exit_codes import ExitCode
from fadelab_emulation.linux import signal_on_parent_death

_LAST_WORDS_BYTES = 4000
_OWN_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Work = Callable[[], None]
"""What a process does until it returns or raises SystemExit with its exit code."""


class RunProcess:
    """A process in a session of its own, which Ctrl-C in the terminal does not reach.

    It is forked, so that it need not import anew what this process has imported already. It is
    asked to end when this process ends, however that happens. Must be made in the main thread of
    a process that has no other.

    Args:
        work: what it does.
        log: file to which everything that it says is added.

    """

    def __init__(self, work: Work, log: Path) -> None:
        self._log = log
        with log.open("ab") as said:
            self._log_start = said.tell()
            parent_pid = os.getpid()
            sys.stdout.flush()
            sys.stderr.flush()
            # No signal is to reach the child while it still has the handlers of this process.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _OWN_SIGNALS)
            self._pid = os.fork()
            if self._pid == 0:
                _live(work, said.fileno(), parent_pid)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._descriptor = os.pidfd_open(self._pid)

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
        return self._reap()

    def _reap(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        return os.waitstatus_to_exitcode(status)

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


def _live(work: Work, log_descriptor: int, parent_pid: int) -> NoReturn:
    """Be the child: part with what is the parent's, do the work, exit."""
    code: int = ExitCode.INTERNAL
    try:
        # A signal would wake the parent's event loop as well, which would take it for its own.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        signal_on_parent_death(signal.SIGTERM)
        if os.getppid() != parent_pid:  # it died before the request was in force
            os._exit(code)
        _redirect(log_descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OWN_SIGNALS)
        work()
        code = ExitCode.VALID
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else ExitCode.VALID
    except BaseException:  # noqa: BLE001 -- the process ends here, whatever it is
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: this process must not run its parent's clean-up.
        os._exit(code)


def _redirect(log_descriptor: int) -> None:
    """Let everything that is said go to the log; there is nothing to read."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for standard in (1, 2):
        os.dup2(log_descriptor, standard)
    # Whoever has replaced them in the parent meant what the parent says.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
