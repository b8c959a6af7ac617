"""Counts that show whether the kernel did what it was told: rates, losses, closed windows."""

import numpy as np

from fadelab_emulation.backends.base import IntArray
from fadelab_emulation.link_state import BoolArray, FloatArray

GUARD_S = 0.020
"""Packets on their way when a window closes may still arrive for this long."""


Where = int | IntArray | slice
"""One element, some elements, or all of them."""
_ALL = slice(None)


class _TimeIntegral:
    """Integrals over time of values that hold until they are set anew."""

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        self.total: FloatArray = np.zeros(shape)
        self._value: FloatArray = np.zeros(shape)
        self._since_s: FloatArray = np.zeros(shape)

    def set(self, where: Where, value: float | FloatArray, now_s: float) -> None:
        """Note what holds from ``now_s`` on."""
        self.advance(where, now_s)
        self._value[where] = value

    def advance(self, where: Where, now_s: float) -> None:
        """Bring :attr:`total` up to date."""
        self.total[where] += self._value[where] * (now_s - self._since_s[where])
        self._since_s[where] = now_s


class RateAccount:
    """Programmed against achieved bytes of any number of shapers.

    A shaper is sampled now and then. An interval between two samples counts if its link was open
    all the time and its queue was occupied at both: then the shaper was the bottleneck, and what
    it sent can be held against the integral of the rate that was programmed meanwhile. Where a
    stretch of such intervals begins and ends, the shaper's burst and the frame that is under way
    blur the account by a few frames: ``stretches`` counts how often that happened.
    """

    def __init__(self, shapers: int) -> None:
        self.programmed_bytes: FloatArray = np.zeros(shapers)
        self.achieved_bytes: IntArray = np.zeros(shapers, dtype=np.int64)
        self.stretches: IntArray = np.zeros(shapers, dtype=np.int64)
        self._bits = _TimeIntegral(shapers)
        self._open: BoolArray = np.zeros(shapers, dtype=np.bool_)
        self._counting: BoolArray = np.zeros(shapers, dtype=np.bool_)
        self._in_stretch: BoolArray = np.zeros(shapers, dtype=np.bool_)
        self._sampled_bits: FloatArray = np.zeros(shapers)
        self._sent_bytes: IntArray = np.zeros(shapers, dtype=np.int64)

    def set_rate(self, shaper: int, rate_bps: float, now_s: float) -> None:
        """Note the rate that holds from ``now_s`` on; 0 means that the link is closed."""
        self._bits.set(shaper, rate_bps, now_s)
        self._open[shaper] = rate_bps > 0
        if rate_bps <= 0:
            self._counting[shaper] = False

    def sample(
        self, shapers: IntArray, sent_bytes: IntArray, backlog_bytes: IntArray, now_s: float
    ) -> None:
        """Note what some shapers have sent so far and still hold."""
        self._bits.advance(shapers, now_s)
        bits = self._bits.total[shapers]
        saturated = (backlog_bytes > 0) & self._open[shapers]
        counted = saturated & self._counting[shapers]
        programmed = (bits - self._sampled_bits[shapers]) / 8
        self.programmed_bytes[shapers] += np.where(counted, programmed, 0.0)
        self.achieved_bytes[shapers] += np.where(counted, sent_bytes - self._sent_bytes[shapers], 0)
        self.stretches[shapers] += counted & ~self._in_stretch[shapers]
        self._in_stretch[shapers] = counted
        self._counting[shapers] = saturated
        self._sampled_bits[shapers] = bits
        self._sent_bytes[shapers] = sent_bytes


class LossAccount:
    """Lost against expected packets of any number of ports.

    An interval between two samples of a port counts if its link was open all the time. What is
    expected is what arrived in it, times the probability in force: its mean over the interval,
    weighed with the packets of each class that the sender's shaper let go meanwhile.
    """

    def __init__(self, lanes: int, ports: int) -> None:
        self.arrived: IntArray = np.zeros(ports, dtype=np.int64)
        self.lost: IntArray = np.zeros(ports, dtype=np.int64)
        self.expected: FloatArray = np.zeros(ports)
        self._probability = _TimeIntegral((lanes, ports))
        self._counting: BoolArray = np.zeros(ports, dtype=np.bool_)
        self._sampled_s: FloatArray = np.zeros(ports)
        self._sampled_probability: FloatArray = np.zeros((lanes, ports))
        self._arrivals: IntArray = np.zeros((2, ports), dtype=np.int64)
        self._sent: IntArray = np.zeros((lanes, ports), dtype=np.int64)

    def set_probabilities(self, probability: FloatArray, now_s: float) -> None:
        """Note the mean losses that hold from ``now_s`` on, shape ``(lanes, ports)``."""
        self._probability.set(_ALL, probability, now_s)

    def interrupt(self, ports: IntArray) -> None:
        """Note that links are about to be closed: what befalls packets then is not loss."""
        self._counting[ports] = False

    def sample(
        self,
        ports: IntArray,
        is_open: BoolArray,
        arrivals: IntArray,
        sent: IntArray,
        now_s: float,
    ) -> None:
        """Note the counts of some ports so far.

        Args:
            ports: which ones.
            is_open: whether their links are open.
            arrivals: packets that arrived, and how many of them were lost; ``(2, len(ports))``.
            sent: packets that each lane's shaper let go, ``(lanes, len(ports))``.
            now_s: when.

        """
        self._probability.advance(_ALL, now_s)
        integral = self._probability.total[:, ports]
        elapsed_s = np.maximum(now_s - self._sampled_s[ports], 1e-9)
        probability = (integral - self._sampled_probability[:, ports]) / elapsed_s
        since = arrivals - self._arrivals[:, ports]
        weights = np.maximum(sent - self._sent[:, ports], 0)
        # Where nothing was sent since, what arrived was on its way: most likely default packets.
        weights[0] += weights.sum(axis=0) == 0
        mean = (probability * weights).sum(axis=0) / weights.sum(axis=0)
        counted = self._counting[ports]
        self.arrived[ports] += np.where(counted, since[0], 0)
        self.lost[ports] += np.where(counted, since[1], 0)
        self.expected[ports] += np.where(counted, since[0] * mean, 0.0)
        self._counting[ports] = is_open
        self._sampled_s[ports] = now_s
        self._sampled_probability[:, ports] = integral
        self._arrivals[:, ports] = arrivals
        self._sent[:, ports] = sent


class LeakAccount:
    """Packets that get through closed links, both directions.

    The count runs from ``GUARD_S`` after the closing (:meth:`begin`) until just before the
    reopening (:meth:`opened`).
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
        """Begin counting from these running counts of packets that got through."""
        self._due_s.pop(device, None)
        self._baseline[device] = (packets_up, packets_down)

    def update(self, device: int, packets_up: int, packets_down: int) -> None:
        """Count what got through since the last reading and go on."""
        before_up, before_down = self._baseline[device]
        self.leaked_up[device] += packets_up - before_up
        self.leaked_down[device] += packets_down - before_down
        self._baseline[device] = (packets_up, packets_down)

    def opened(self, device: int) -> None:
        """Stop counting: the link is about to open."""
        self._due_s.pop(device, None)
        self._baseline.pop(device, None)
