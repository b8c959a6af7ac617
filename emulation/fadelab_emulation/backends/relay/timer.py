"""A descriptor that becomes readable at a given moment; epoll's own time-outs count milliseconds."""

import ctypes
import math
import os

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK, _TFD_CLOEXEC = 0o4000, 0o2000000
_TFD_TIMER_ABSTIME = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class MonotonicTimer:
    """A timer on CLOCK_MONOTONIC (timerfd_create(2)), to be watched edge-triggered.

    Setting it anew withdraws what it has not told yet, so nobody ever needs to read it.
    """

    def __init__(self) -> None:
        self._descriptor: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _TimerSpec()
        self._address = ctypes.byref(self._spec)
        self._due_s = math.inf

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def set(self, due_s: float) -> None:
        """Ring at monotonic second ``due_s``, at once if that is over, never if it is infinity."""
        if due_s == self._due_s:
            return
        self._due_s = due_s
        value = self._spec.value
        value.seconds = value.nanoseconds = 0  # switches the timer off
        if due_s != math.inf:
            nanoseconds = int(due_s * 1e9) + 1
            value.seconds, value.nanoseconds = divmod(nanoseconds, 1_000_000_000)
        if _libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, self._address, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
