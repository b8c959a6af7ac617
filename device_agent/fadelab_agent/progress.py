"""A transfer that makes progress never fails; one that stops fails with the figures that showed it.

Only time in contact counts: a link that is closed by mobility is not a stall. How long a packet
may take follows from the link's rate as the modem reports it.
"""

import asyncio
import math
from collections.abc import Awaitable
from typing import TypeVar

from fadelab_agent.radio import Radio

# A packet may take this many times its ideal duration before it counts as stalled. TCP's worst
# regular recovery (a retransmission time-out at the end of a burst) stays well below it.
_PATIENCE = 10.0
_T = TypeVar("_T")

# Both directions resume alike: after a pause, and not for ever when nothing at all gets through.
RETRY_PAUSE_S = 0.2
FRUITLESS_ATTEMPTS = 3


class StalledError(RuntimeError):
    """Nothing moved for longer than the link's rate can explain."""


class ProgressWatch:
    """Watch one transfer.

    Args:
        radio: tells time in contact and the present rate.
        unit_bytes: size of the pieces in which progress shows.
        minimum_s: seconds in contact without progress that are always tolerated.
        uplink: which of the two rates applies.

    """

    def __init__(self, radio: Radio, *, unit_bytes: int, minimum_s: float, uplink: bool) -> None:
        self._radio = radio
        self._unit_bits = 8 * unit_bytes
        self._minimum_s = minimum_s
        self._uplink = uplink
        self._moved = asyncio.Event()
        self._since_open_s = radio.open_s()
        self._allowance_s = 0.0
        self.pieces = 0
        """Pieces that got through."""

    def moved(self) -> None:
        """Note that a piece got through."""
        self.pieces += 1
        self._since_open_s = self._radio.open_s()
        self._allowance_s = 0.0
        self._moved.set()

    def ideal_s(self) -> float:
        """Return the seconds that a piece takes at the link's present rate."""
        rate_bps = self._rate_bps()
        return self._unit_bits / rate_bps if rate_bps > 0 else math.inf

    async def guard(self, work: Awaitable[_T]) -> _T:
        """Return the result of ``work``, or cancel it when it stalls.

        Raises:
            StalledError: naming the time in contact, the allowance and the rate.

        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await self._wait_for_news(task)
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        return task.result()

    async def _wait_for_news(self, task: "asyncio.Future[_T]") -> None:
        """Return when the task ended or something moved; raise when neither is due any more."""
        self._moved.clear()
        news = asyncio.ensure_future(self._moved.wait())
        idle_s = self._radio.open_s() - self._since_open_s
        try:
            await asyncio.wait(
                (task, news),
                timeout=max(0.1, self._allow() - idle_s),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            news.cancel()
        idle_s = self._radio.open_s() - self._since_open_s
        allowance_s = self._allow()
        if not task.done() and idle_s > allowance_s:
            direction = "uplink" if self._uplink else "downlink"
            raise StalledError(
                f"nothing moved on the {direction} for {idle_s:.1f} s in contact; at "
                f"{self._rate_bps() / 1e6:.3f} Mbit/s {allowance_s:.1f} s are allowed for "
                f"{self._unit_bits // 8} bytes"
            )

    def _rate_bps(self) -> float:
        view = self._radio.view
        return view.rate_up_bps if self._uplink else view.rate_down_bps

    def _allow(self) -> float:
        """Return the seconds allowed at the lowest rate that was seen since something moved.

        A rate that rises does not blame a piece for the time that passed at the lower one.
        """
        ideal_s = self.ideal_s()
        patience_s = _PATIENCE * ideal_s if ideal_s < math.inf else 0.0
        self._allowance_s = max(self._allowance_s, self._minimum_s + patience_s)
        return self._allowance_s
