"""Programmed against achieved goodput of transfers, from receivers' timestamps and the timeline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a receiver noted of one transfer, in emulated seconds."""

    mark_s: float
    """Arrival of the packet from which on it is timed."""
    last_s: float
    """Arrival of the last packet."""
    bytes_after_mark: int
    """Packet bytes that arrived after that packet."""


class ProgrammedRate:
    """One direction of one link: the integral of its programmed rate over time.

    Args:
        rate_bps: the rate of each tick, 0 while the link is closed; shape ``(ticks,)``.
        tick_s: length of a tick.

    """

    def __init__(self, rate_bps: FloatArray, tick_s: float) -> None:
        self._tick_s = tick_s
        self._bits = np.concatenate(([0.0], np.cumsum(rate_bps))) * tick_s
        self._open_s = np.concatenate(([0.0], np.cumsum(rate_bps > 0))) * tick_s

    def bits(self, from_s: float, to_s: float) -> float:
        """Return the bits that the link was programmed to carry between two times."""
        return self._at(self._bits, to_s) - self._at(self._bits, from_s)

    def open_s(self, from_s: float, to_s: float) -> float:
        """Return how long the link was open between two times."""
        return self._at(self._open_s, to_s) - self._at(self._open_s, from_s)

    def airtime_s(self, bits: float, from_s: float) -> float:
        """Return how long the open link would take for some bits if nothing else were on it.

        What the timeline's end leaves over takes as long as the mean of the whole open time.
        """
        before = self._at(self._bits, from_s)
        left = max(0.0, bits - (self._bits[-1] - before))
        # Where the link is closed neither integral grows, so both ends of such a gap are one.
        end_s = float(np.interp(before + bits, self._bits, self._open_s))
        beyond_s = left * self._open_s[-1] / self._bits[-1] if left and self._bits[-1] else 0.0
        return end_s - self._at(self._open_s, from_s) + beyond_s

    def _at(self, integral: FloatArray, t_s: float) -> float:
        position = np.clip(t_s / self._tick_s, 0, len(integral) - 1)
        return float(np.interp(position, np.arange(len(integral)), integral))


def goodput(
    rate: ProgrammedRate, transfers: Sequence[Transfer]
) -> tuple[float | None, float | None]:
    """Return programmed and achieved bits per second over the open time of all transfers.

    Both are None when no transfer had a packet after its mark.
    """
    timed = [t for t in transfers if t.bytes_after_mark > 0 and t.last_s > t.mark_s]
    open_s = sum(rate.open_s(t.mark_s, t.last_s) for t in timed)
    if open_s <= 0:
        return None, None
    programmed = sum(rate.bits(t.mark_s, t.last_s) for t in timed)
    achieved = 8.0 * sum(t.bytes_after_mark for t in timed)
    return programmed / open_s, achieved / open_s
