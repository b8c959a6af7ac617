"""Packets on their way: a delay with jitter that lets no packet overtake another."""

import math
from collections import deque
from collections.abc import Iterator

import numpy as np

MAX_DEVIATIONS = 4.0
"""Normal deviates are cut off here, so that there is a longest time on the way (netem's tables of
the normal distribution end there too)."""
_BLOCK = 1024


def longest_s(delay_s: float, jitter_s: float) -> float:
    """Return the longest time that a packet may be on its way."""
    return delay_s + MAX_DEVIATIONS * jitter_s


class DelayLine:
    """Delays each packet by a normally distributed time, at least 0.

    A packet whose time would be up before its predecessor's leaves together with it. Where packets
    follow each other more closely than the jitter is wide, delays are therefore longer in the mean
    and less spread than the distribution says.
    """

    __slots__ = ("_delay_s", "_deviates", "_jitter_s", "_last_s", "_packets")

    def __init__(self, generator: np.random.Generator) -> None:
        self._deviates = _normal_deviates(generator)
        self._packets: deque[tuple[float, bytes]] = deque()
        self._delay_s = 0.0
        self._jitter_s = 0.0
        self._last_s = -math.inf

    def change(self, delay_s: float, jitter_s: float) -> None:
        """Set mean and standard deviation for the packets to come."""
        self._delay_s = delay_s
        self._jitter_s = jitter_s

    def add(self, packet: bytes, at_s: float) -> None:
        """Send a packet on its way at ``at_s``, which is not before that of the last one."""
        delay_s = self._delay_s
        if self._jitter_s > 0:
            delay_s = max(0.0, delay_s + self._jitter_s * next(self._deviates))
        self._last_s = max(self._last_s, at_s + delay_s)
        self._packets.append((self._last_s, packet))

    @property
    def next_s(self) -> float:
        """When the next packet arrives; infinity if none is on its way."""
        return self._packets[0][0] if self._packets else math.inf

    def arrivals(self, now_s: float) -> list[bytes]:
        """Return the packets that have arrived by ``now_s``, in the order in which they were sent."""
        packets = self._packets
        arrived = []
        while packets and packets[0][0] <= now_s:
            arrived.append(packets.popleft()[1])
        return arrived


def _normal_deviates(generator: np.random.Generator) -> Iterator[float]:
    """Yield normal deviates without end; drawn in blocks, for single draws are slow."""
    while True:
        block = generator.standard_normal(_BLOCK).clip(-MAX_DEVIATIONS, MAX_DEVIATIONS)
        yield from block.tolist()
