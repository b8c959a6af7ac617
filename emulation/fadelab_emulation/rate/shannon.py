"""Shannon's capacity of each device's own band, less an efficiency."""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel, LinkRates
from fadelab_emulation.rate.receiver import ReceiverConfig, noise_power_w
from fadelab_emulation.scene import Scene


class ShannonConfig(ReceiverConfig):
    """``efficiency * bandwidth * log2(1 + SNR)`` on a band that the device has to itself."""

    kind: Literal["shannon"] = "shannon"
    efficiency: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the capacity that coding, pilots and headers leave; 1 is the bound.",
    )
    max_rate_bps: float | None = Field(
        default=None,
        ge=MIN_RATE_BPS,
        description="Rate of the highest modulation; left out: no bound.",
    )

    downlink_bandwidth_hz: float | None = Field(
        default=None,
        gt=0,
        le=10e9,
        description="Bandwidth of the downlink, where base stations have more for it; left out: "
        "bandwidth_hz.",
    )

    @property
    def downlink_hz(self) -> float:
        """Bandwidth of the downlink."""
        return self.downlink_bandwidth_hz or self.bandwidth_hz

    def build(self, scene: Scene) -> "Shannon":
        """Return the model; it is the same for every scene."""
        del scene
        return Shannon(self)


class Shannon:
    """The effective rate of a tick: the mean over fading blocks of each block's rate.

    ``r(p) = B log2(1 + p g / (N0 F B))`` as in C. E. Shannon, "Communication in the presence of
    noise", Proc. IRE 37(1), 1949; the bound ``max_rate_bps`` holds in each block, the floor
    :data:`MIN_RATE_BPS` for the mean.
    """

    def __init__(self, config: ShannonConfig) -> None:
        self._noise_up_w: float = config.noise_w
        self.noise_w: float = noise_power_w(
            config.downlink_hz, config.noise_dbm_per_hz, config.noise_figure_db
        )
        """Of a device's receiver."""
        self._up_bps = config.efficiency * config.bandwidth_hz
        self._down_bps = config.efficiency * config.downlink_hz
        self._max_rate_bps = math.inf if config.max_rate_bps is None else config.max_rate_bps

    def rates(
        self, channel: Channel, uplink_power_w: FloatArray, downlink_power_w: float
    ) -> LinkRates:
        """Return SNR and rates of every device; devices do not disturb each other."""
        power_gain = channel.power_gain
        snr_up = power_gain * (uplink_power_w / self._noise_up_w)
        snr_down = power_gain * (downlink_power_w / self.noise_w)
        return LinkRates(
            snr_up_db=10 * np.log10(channel.mean(snr_up)),
            rate_up_bps=self._effective_bps(self._up_bps, snr_up, channel),
            rate_down_bps=self._effective_bps(self._down_bps, snr_down, channel),
        )

    def _effective_bps(self, scale_bps: float, snr: FloatArray, channel: Channel) -> FloatArray:
        per_block = np.minimum(scale_bps * np.log2(1 + snr), self._max_rate_bps)
        return np.maximum(channel.mean(per_block), MIN_RATE_BPS)
