"""LinkState over time: the one thing that radio models produce and back-ends carry out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LinkTick:
    """The state of every device's link from one tick to the next; arrays have shape ``(devices,)``.

    Rates count layer-2 bytes (Ethernet header included, 14 B), as Linux queueing disciplines do.
    A closed link (``is_open`` false) is a gap between contact windows: nothing passes in either
    direction, whatever the rates say.
    """

    index: int
    """Tick number, from 0."""
    t_s: float
    """Emulated seconds since the start of the run: ``index * tick_s``."""
    x_m: FloatArray
    y_m: FloatArray
    distance_m: FloatArray
    """Distance to the serving base station."""
    snr_up_db: FloatArray
    """Mean uplink signal-to-noise ratio over the tick."""
    rate_up_bps: FloatArray
    rate_down_bps: FloatArray
    loss_up: FloatArray
    """Probability that an uplink packet is lost, 0..1."""
    loss_down: FloatArray
    is_open: BoolArray
    predicted_contact_s: FloatArray
    """What the device may know: its predicted remaining contact time; 0 while closed."""
