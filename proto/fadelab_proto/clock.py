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
    """The kernel's CLOCK_MONOTONIC, which network and PID namespaces share."""

    def now_s(self) -> float:
        """Return seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    async def sleep_until(self, when_s: float) -> None:
        """Wait in the running event loop until ``when_s``."""
        await asyncio.sleep(max(0.0, when_s - self.now_s()))
