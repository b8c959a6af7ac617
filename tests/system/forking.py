"""Ending the forked processes of scenes."""

import os
import signal


def kill(pid: int) -> None:
    """End a process with SIGKILL; return when it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def exit_code(pid: int) -> int:
    """Wait for the end of a process; return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
