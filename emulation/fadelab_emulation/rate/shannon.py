"""Shannon's capacity of each device's own band, less an efficiency."""

import math
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel, LinkRates, RateConfig
from fadelab_emulation.scene import Scene

THERMAL_NOISE_DBM_PER_HZ = -174.0
"""Thermal noise at 290 K: 10 log10(1.380649e-23 J/K * 290 K / 1 mW) = -173.98 dBm/Hz."""


def noise_power_w(bandwidth_hz: float, noise_dbm_per_hz: float, noise_figure_db: float) -> float:
    """Return the noise power of a receiver in watts."""
    return bandwidth_hz * math.pow(10, (noise_dbm_per_hz + noise_figure_db - 30) / 10)


class ShannonConfig(RateConfig):
    """``efficiency * bandwidth * log2(1 + SNR)`` on a band that the device has to itself."""

    kind: Literal["shannon"] = "shannon"
    bandwidth_hz: float = Field(
        gt=0, le=10e9, description="Bandwidth of one device, the same in both directions."
    )
    noise_figure_db: float = Field(
        default=9.0, ge=0, le=30, description="Noise that the receiver adds."
    )
    noise_dbm_per_hz: float = Field(
        default=THERMAL_NOISE_DBM_PER_HZ,
        ge=-250,
        le=0,
        description="Noise density at the antenna; thermal noise at 290 K by default.",
    )
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

    @model_validator(mode="after")
    def _rate_is_finite(self) -> Self:
        if self.noise_dbm_per_hz + self.noise_figure_db > 0:
            raise ValueError("noise density and noise figure together exceed 0 dBm per hertz")
        return self

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
        self.noise_w: float = noise_power_w(
            config.bandwidth_hz, config.noise_dbm_per_hz, config.noise_figure_db
        )
        self._scale_bps = config.efficiency * config.bandwidth_hz
        self._max_rate_bps = math.inf if config.max_rate_bps is None else config.max_rate_bps

    def rates(
        self, channel: Channel, uplink_power_w: FloatArray, downlink_power_w: float
    ) -> LinkRates:
        """Return SNR and rates of every device; devices do not disturb each other."""
        power_gain = channel.power_gain
        snr_up = power_gain * (uplink_power_w / self.noise_w)
        snr_down = power_gain * (downlink_power_w / self.noise_w)
        return LinkRates(
            snr_up_db=10 * np.log10(channel.mean(snr_up)),
            rate_up_bps=self._effective_bps(snr_up, channel),
            rate_down_bps=self._effective_bps(snr_down, channel),
        )

    def _effective_bps(self, snr: FloatArray, channel: Channel) -> FloatArray:
        per_block = np.minimum(self._scale_bps * np.log2(1 + snr), self._max_rate_bps)
        return np.maximum(channel.mean(per_block), MIN_RATE_BPS)
