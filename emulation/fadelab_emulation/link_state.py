"""LinkState over time: the one thing that radio models produce and back-ends carry out."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PacketLoss:
    """Gilbert-Elliott loss of every link in one direction; arrays have shape ``(devices,)``.

    A chain with a good and a bad state moves once per packet, then the packet is lost with the
    probability of the state it finds (E. O. Elliott, "Estimates of error rates for codes on
    burst-noise channels", Bell Syst. Tech. J. 42(5), 1963). Independent losses are the case in
    which both states lose alike, see :meth:`independent`.
    """

    in_good: FloatArray
    """Probability that a packet is lost in the good state."""
    in_bad: FloatArray
    to_bad: FloatArray
    """Probability, per packet, of going from the good state to the bad one."""
    to_good: FloatArray

    @classmethod
    def independent(cls, probability: FloatArray) -> Self:
        """Return losses that know nothing of each other."""
        zeros = np.zeros_like(probability)
        return cls(in_good=probability, in_bad=probability, to_bad=zeros, to_good=zeros + 1.0)

    @property
    def mean(self) -> FloatArray:
        """Share of packets lost in the long run."""
        moves = self.to_bad + self.to_good
        bad = np.divide(self.to_bad, moves, out=np.zeros_like(moves), where=moves > 0)
        return self.in_good + bad * (self.in_bad - self.in_good)

    @property
    def is_independent(self) -> BoolArray:
        """Whether losses are independent of each other."""
        alike: BoolArray = (self.in_good == self.in_bad) | (self.to_bad == 0)
        return alike


@dataclass(frozen=True, slots=True)
class Lane:
    """What one packet class gets in one direction of every link; shape ``(devices,)``.

    Rates count layer-2 bytes (Ethernet header included, 14 B), as Linux queueing disciplines do.
    """

    rate_bps: FloatArray
    loss: PacketLoss


@dataclass(frozen=True, slots=True)
class LinkTick:
    """The state of every device's link from one tick to the next; arrays have shape ``(devices,)``.

    A closed link (``is_open`` false) is a gap between contact windows: nothing passes in either
    direction, whatever the rates say.
    """

    index: int
    """Tick number, from 0."""
    t_s: float
    """Emulated seconds since the start of the run: ``index * tick_s``."""
    x_m: FloatArray
    y_m: FloatArray
    site: IntArray
    """Number of the serving base station."""
    distance_m: FloatArray
    """Distance to the serving base station."""
    snr_up_db: FloatArray
    """Mean uplink signal-to-noise ratio over the tick."""
    up: tuple[Lane, ...]
    """Uplink lanes: the default class first, then the others in their order."""
    down: tuple[Lane, ...]
    delay_up_s: FloatArray
    """Mean one-way delay besides queueing and transmission."""
    delay_down_s: FloatArray
    jitter_up_s: FloatArray
    """Standard deviation of the delay; packets keep their order."""
    jitter_down_s: FloatArray
    ergodic_up_bps: FloatArray
    """Expectation of the uplink's rate over the fading distribution at this place."""
    ergodic_down_bps: FloatArray
    is_open: BoolArray
    predicted_contact_s: FloatArray
    """What the device may know: its predicted remaining contact time; 0 while closed."""

    @property
    def rate_up_bps(self) -> FloatArray:
        """The uplink's rate, all lanes together."""
        return _total_rate_bps(self.up)

    @property
    def rate_down_bps(self) -> FloatArray:
        """The downlink's rate, all lanes together."""
        return _total_rate_bps(self.down)

    @property
    def loss_up(self) -> FloatArray:
        """Mean loss of the uplink's default class."""
        return self.up[0].loss.mean

    @property
    def loss_down(self) -> FloatArray:
        """Mean loss of the downlink's default class."""
        return self.down[0].loss.mean

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self.is_open)


def _total_rate_bps(lanes: tuple[Lane, ...]) -> FloatArray:
    total: FloatArray = np.sum([lane.rate_bps for lane in lanes], axis=0)
    return total


def plain_tick(
    rate_up_bps: FloatArray,
    rate_down_bps: FloatArray,
    *,
    index: int = 0,
    t_s: float = 0.0,
    is_open: BoolArray | None = None,
    loss_up: PacketLoss | None = None,
    loss_down: PacketLoss | None = None,
    delay_s: float = 0.0,
    jitter_s: float = 0.0,
) -> LinkTick:
    """Return a tick of links that no radio model is behind: one lane, given rates, open."""
    zeros = np.zeros(len(rate_up_bps))
    none = PacketLoss.independent(zeros)
    return LinkTick(
        index=index,
        t_s=t_s,
        x_m=zeros,
        y_m=zeros,
        site=np.zeros(len(zeros), dtype=np.int64),
        distance_m=zeros,
        snr_up_db=zeros,
        up=(Lane(rate_up_bps, loss_up or none),),
        down=(Lane(rate_down_bps, loss_down or none),),
        delay_up_s=zeros + delay_s,
        delay_down_s=zeros + delay_s,
        jitter_up_s=zeros + jitter_s,
        jitter_down_s=zeros + jitter_s,
        ergodic_up_bps=rate_up_bps,
        ergodic_down_bps=rate_down_bps,
        is_open=np.ones(len(zeros), dtype=np.bool_) if is_open is None else is_open,
        predicted_contact_s=zeros,
    )
