"""A rate that is given instead of computed, to calibrate links and to isolate effects."""

from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.rate.base import MIN_RATE_BPS, Channel, LinkRates, RateConfig
from fadelab_emulation.scene import Scene


class FixedRateConfig(RateConfig):
    """The same rates for every device at every time; the channel has no say."""

    kind: Literal["fixed"] = "fixed"
    rate_up_bps: float = Field(
        ge=MIN_RATE_BPS, le=100e9, description="Uplink rate at layer 2, at least 64 kbit/s."
    )
    rate_down_bps: float = Field(
        ge=MIN_RATE_BPS, le=100e9, description="Downlink rate at layer 2, at least 64 kbit/s."
    )
    snr_db: float = Field(
        default=20.0,
        description="The signal-to-noise ratio to report: a given rate follows from none.",
    )

    def build(self, scene: Scene) -> "FixedRate":
        """Return the constant rates."""
        return FixedRate(self, scene.devices)


class FixedRate:
    """Constant rates for ``devices`` devices."""

    noise_w: float | None = None

    def __init__(self, config: FixedRateConfig, devices: int) -> None:
        self._rates = LinkRates(
            snr_up_db=np.full(devices, config.snr_db),
            rate_up_bps=np.full(devices, config.rate_up_bps),
            rate_down_bps=np.full(devices, config.rate_down_bps),
        )

    def rates(
        self, channel: Channel, uplink_power_w: FloatArray, downlink_power_w: float
    ) -> LinkRates:
        """Return the constant rates whatever the channel and the powers are."""
        del channel, uplink_power_w, downlink_power_w
        return self._rates
