"""The contract of a rate model: channel gains and powers in, rates of all devices out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fadelab_emulation.link_state import FloatArray, IntArray
from fadelab_emulation.scene import Scene
from fadelab_proto.config import StrictModel

MIN_RATE_BPS = 64_000.0
"""The least rate an open link is given: see :class:`RateModel`."""


@dataclass(frozen=True, slots=True)
class Channel:
    """The channel of every device during one tick, the same in both directions."""

    gain: FloatArray
    """Received over transmitted power by path loss and shadowing, shape ``(devices, sites)``."""
    site: IntArray
    """Each device's serving site, shape ``(devices,)``."""
    fading: FloatArray
    """Power gain of the serving link relative to its mean, shape ``(blocks, devices)`` or
    ``(blocks, 1)``: one row per fading block."""
    share: FloatArray
    """Part of the tick that each block fills, shape ``(blocks,)``, adding up to 1."""
    t_s: float = 0.0
    """Emulated time of the tick's beginning, for models that renew something only now and then."""

    @property
    def power_gain(self) -> FloatArray:
        """The serving link's gain with fading, shape ``(blocks, devices)``."""
        return self.gain[np.arange(len(self.site)), self.site] * self.fading

    def mean(self, per_block: FloatArray) -> FloatArray:
        """Return the mean over the tick of values of shape ``(blocks, devices)``.

        Not a matrix product: its order of summation, and with it the last bit, may depend on the
        machine and on the number of devices.
        """
        mean = np.zeros(per_block.shape[1])
        # Row by row: numpy would add up a single column in another order than several.
        for share, row in zip(self.share.tolist(), per_block, strict=True):
            mean += share * row
        return mean


@dataclass(frozen=True, slots=True)
class LinkRates:
    """What a rate model answers; every array has shape ``(devices,)``."""

    snr_up_db: FloatArray
    """Mean uplink signal-to-noise ratio over the tick (the mean is taken before the dB)."""
    rate_up_bps: FloatArray
    rate_down_bps: FloatArray


class RateModel(Protocol):
    """Rates of all devices at once, because one device's power may change another's rate.

    A rate is the mean over the tick, at least :data:`MIN_RATE_BPS`: a kernel shaper that is set
    lower goes into debt and answers late to the next rise, and whether a link is *closed* is for
    the contact model alone to say. A deep fade thus slows a link down to the floor and does not
    cut its contact window in pieces.
    """

    @property
    def noise_w(self) -> float | None:
        """Noise power of a receiver; None where rates are given and not computed."""
        ...

    def rates(
        self, channel: Channel, uplink_power_w: FloatArray, downlink_power_w: float
    ) -> LinkRates:
        """Return SNR and rates; ``uplink_power_w`` has shape ``(devices,)``."""
        ...


class RateConfig(StrictModel, ABC):
    """The base of every rate model's settings."""

    @abstractmethod
    def build(self, scene: Scene) -> RateModel:
        """Return the model for the scene's devices."""
