"""Forked processes of scenes: quick to start, since what takes long is loaded already."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

from fadelab_emulation import linux


def fork(body: Callable[[], None]) -> int:
    """Run ``body`` in a process of its own, which ends with this one; return its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            linux.signal_on_parent_death(signal.SIGKILL)
            body()
            status = 0
        except Exception:  # noqa: BLE001 -- the process ends here, whatever it is
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid


def kill(pid: int) -> None:
    """End a process with SIGKILL; return when it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def exit_code(pid: int) -> int:
    """Wait for the end of a process; return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
