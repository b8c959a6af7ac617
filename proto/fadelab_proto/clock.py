"""Time as a dependency: code asks a clock, tests hand in one they control."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A source of monotonic time and of waiting.

    ``now_s`` never goes backwards and is shared by every process of one machine, so times from
    different processes can be subtracted.
    """

    def now_s(self) -> float:
        """Return monotonic seconds."""
        ...

    async def sleep_until(self, when_s: float) -> None:
        """Return once ``now_s() >= when_s``; at once if that is already so."""
        ...


class SystemClock:
    """The kernel's CLOCK_MONOTONIC, which network and PID namespaces share.

    Args:
        time_scale: seconds of this clock per second of the kernel's: an emulation that runs
            faster than real time gives all its processes the same faster clock.
        offset_s: is added to the kernel's seconds, so that processes on several machines, whose
            kernels began to count at different moments, share one clock.

    """

    def __init__(self, time_scale: float = 1.0, offset_s: float = 0.0) -> None:
        self._time_scale = time_scale
        self._offset_s = offset_s

    def now_s(self) -> float:
        """Return seconds of CLOCK_MONOTONIC, shifted and scaled."""
        return (time.monotonic() + self._offset_s) * self._time_scale

    async def sleep_until(self, when_s: float) -> None:
        """Wait in the running event loop until ``when_s``."""
        await asyncio.sleep(max(0.0, when_s - self.now_s()) / self._time_scale)
