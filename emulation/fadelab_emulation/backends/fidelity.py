"""Counts that show whether the kernel did what it was told: rate kept, closed means closed."""

import numpy as np

from fadelab_emulation.backends.base import IntArray
from fadelab_emulation.link_state import BoolArray, FloatArray

GUARD_S = 0.020
"""Packets on their way when a window closes may still arrive for this long."""


class RateAccount:
    """Programmed against achieved bytes of one direction of all links.

    A link is sampled now and then. An interval between two samples counts if the link was open
    all the time and its queue was occupied at both: then the shaper was the bottleneck, and what
    it sent can be held against the integral of the rate that was programmed meanwhile. Where a
    stretch of such intervals begins and ends, the shaper's burst and the frame that is under way
    blur the account by a few frames: ``stretches`` counts how often that happened.
    """

    def __init__(self, devices: int) -> None:
        self.programmed_bytes: FloatArray = np.zeros(devices)
        self.achieved_bytes: IntArray = np.zeros(devices, dtype=np.int64)
        self.stretches: IntArray = np.zeros(devices, dtype=np.int64)
        self._in_stretch: BoolArray = np.zeros(devices, dtype=np.bool_)
        self._rate_bps: FloatArray = np.zeros(devices)
        self._since_s: FloatArray = np.zeros(devices)
        self._pending_bytes: FloatArray = np.zeros(devices)
        self._counting: BoolArray = np.zeros(devices, dtype=np.bool_)
        self._sent_bytes: IntArray = np.zeros(devices, dtype=np.int64)

    def set_rates(self, rate_bps: IntArray, now_s: float) -> None:
        """Note the rates that hold from ``now_s`` on, shape ``(devices,)``; 0 means closed."""
        self._advance(np.arange(len(rate_bps)), now_s)
        self._rate_bps = rate_bps.astype(np.float64)
        self._counting &= rate_bps > 0

    def sample(
        self, devices: IntArray, sent_bytes: IntArray, backlog_bytes: IntArray, now_s: float
    ) -> None:
        """Note what links' shapers have sent so far and still hold."""
        self._advance(devices, now_s)
        saturated = (backlog_bytes > 0) & (self._rate_bps[devices] > 0)
        counted = saturated & self._counting[devices]
        sent_since = sent_bytes - self._sent_bytes[devices]
        self.programmed_bytes[devices] += np.where(counted, self._pending_bytes[devices], 0.0)
        self.achieved_bytes[devices] += np.where(counted, sent_since, 0)
        self.stretches[devices] += counted & ~self._in_stretch[devices]
        self._in_stretch[devices] = counted
        self._counting[devices] = saturated
        self._pending_bytes[devices] = 0
        self._sent_bytes[devices] = sent_bytes

    def _advance(self, devices: IntArray, now_s: float) -> None:
        elapsed_s = now_s - self._since_s[devices]
        self._pending_bytes[devices] += self._rate_bps[devices] * elapsed_s / 8
        self._since_s[devices] = now_s


class LeakAccount:
    """Packets that arrive over closed links, both directions.

    The count runs from ``GUARD_S`` after the closing (:meth:`begin`) until just before the
    reopening (:meth:`end`).
    """

    def __init__(self, devices: int) -> None:
        self.leaked_up: IntArray = np.zeros(devices, dtype=np.int64)
        self.leaked_down: IntArray = np.zeros(devices, dtype=np.int64)
        self._due_s: dict[int, float] = {}
        self._baseline: dict[int, tuple[int, int]] = {}

    def closed(self, device: int, now_s: float) -> None:
        """Note that a link was closed."""
        self._due_s[device] = now_s + GUARD_S

    def next_due_s(self) -> float | None:
        """Return when the next count has to begin."""
        return min(self._due_s.values(), default=None)

    def due(self, now_s: float) -> list[int]:
        """Return the devices whose guard time is over and whose count has not begun."""
        return [device for device, due_s in self._due_s.items() if due_s <= now_s]

    def counting(self, device: int) -> bool:
        """Say whether the count of a closed link has begun."""
        return device in self._baseline

    def begin(self, device: int, packets_up: int, packets_down: int) -> None:
        """Begin counting from these interface counters."""
        self._due_s.pop(device, None)
        self._baseline[device] = (packets_up, packets_down)

    def update(self, device: int, packets_up: int, packets_down: int) -> None:
        """Count what arrived since the last reading and go on."""
        before_up, before_down = self._baseline[device]
        self.leaked_up[device] += packets_up - before_up
        self.leaked_down[device] += packets_down - before_down
        self._baseline[device] = (packets_up, packets_down)

    def opened(self, device: int) -> None:
        """Stop counting: the link is about to open."""
        self._due_s.pop(device, None)
        self._baseline.pop(device, None)
