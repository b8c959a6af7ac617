"""One packet class of one direction: a queue in front of a serialiser whose rate may change."""

import math
from collections import deque

from fadelab_emulation.backends.plan import FRAME_BYTES

ETHERNET_BYTES = 14
"""Rates and queues count layer-2 bytes, as the kernel's queueing disciplines do."""
CREDIT_S = 0.002
CREDIT_BYTES = 2 * FRAME_BYTES
"""How much a serialiser makes up for that was called too late: whichever of both is more.

Start and end of every packet are computed, not observed, so small delays of the caller do not add
up. After a long one, what could have been sent meanwhile must not leave as one burst. It is the
burst that the kernel's shapers have.
"""


class Lane:
    """A byte-limited queue that drops what does not fit, and a serialiser that empties it.

    All times are seconds of one clock that never goes backwards; before every change the caller
    takes what is due. The packet that is being sent stays in the queue until its last bit is out.
    """

    __slots__ = (
        "_limit_bytes",
        "_queue",
        "_rate",
        "_remaining",
        "_since_s",
        "backlog_bytes",
        "finish_s",
    )

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._queue: deque[bytes] = deque()
        self._rate = 0.0
        self._remaining = 0.0
        self._since_s = 0.0
        self.backlog_bytes = 0
        """Layer-2 bytes in the queue."""
        self.finish_s = math.inf
        """When the first packet will be out; infinity while there is none or the rate is 0."""

    def accept(self, packet: bytes, now_s: float, extra_bytes: float = 0) -> bool:
        """Put an IP packet into the queue; return False if it did not fit and is lost.

        ``extra_bytes``: how much more room there is for this packet than for others.
        """
        size = len(packet) + ETHERNET_BYTES
        if self.backlog_bytes + size > self._limit_bytes + extra_bytes:
            return False
        self.backlog_bytes += size
        self._queue.append(packet)
        if len(self._queue) == 1:
            self._begin(size, now_s)
        return True

    def take(self, now_s: float) -> tuple[bytes, float]:
        """Return the packet that is out, ``finish_s <= now_s``, and when its last bit left."""
        packet, finish_s = self._queue.popleft(), self.finish_s
        self.backlog_bytes -= len(packet) + ETHERNET_BYTES
        if self._queue:
            start_s = max(finish_s, now_s - max(CREDIT_S, CREDIT_BYTES / self._rate))
            self._begin(len(self._queue[0]) + ETHERNET_BYTES, start_s)
        else:
            self.finish_s = math.inf
        return packet, finish_s

    def set_rate(self, rate_bps: float, now_s: float) -> None:
        """Go on at another rate, also with the packet that is being sent; 0 holds it."""
        if self._queue:
            self._remaining -= (now_s - self._since_s) * self._rate
            self._since_s = now_s
        self._rate = rate_bps / 8
        if self._queue:
            self._schedule()

    def clear(self) -> None:
        """Throw all packets away, also the one that is being sent."""
        self._queue.clear()
        self.backlog_bytes = 0
        self.finish_s = math.inf

    def _begin(self, size: int, start_s: float) -> None:
        self._remaining = size
        self._since_s = start_s
        self._schedule()

    def _schedule(self) -> None:
        if self._rate > 0:
            self.finish_s = self._since_s + max(0.0, self._remaining) / self._rate
        else:
            self.finish_s = math.inf
