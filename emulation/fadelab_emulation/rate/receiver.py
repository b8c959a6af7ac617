"""The noise of a receiver, which every computed rate starts from."""

import math
from abc import ABC
from typing import Self

from pydantic import Field, model_validator

from fadelab_emulation.rate.base import RateConfig

THERMAL_NOISE_DBM_PER_HZ = -174.0
"""Thermal noise at 290 K: 10 log10(1.380649e-23 J/K * 290 K / 1 mW) = -173.98 dBm/Hz."""


def noise_power_w(bandwidth_hz: float, noise_dbm_per_hz: float, noise_figure_db: float) -> float:
    """Return the noise power of a receiver in watts."""
    return bandwidth_hz * math.pow(10, (noise_dbm_per_hz + noise_figure_db - 30) / 10)


class ReceiverConfig(RateConfig, ABC):
    """The base of rate models that know bandwidth and noise."""

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

    @model_validator(mode="after")
    def _noise_is_finite(self) -> Self:
        if self.noise_dbm_per_hz + self.noise_figure_db > 0:
            raise ValueError(
                f"a noise density of {self.noise_dbm_per_hz:g} dBm per hertz and a noise figure "
                f"of {self.noise_figure_db:g} dB together exceed 0 dBm per hertz"
            )
        return self

    @property
    def noise_w(self) -> float:
        """Noise power of the receiver, over the whole bandwidth."""
        return noise_power_w(self.bandwidth_hz, self.noise_dbm_per_hz, self.noise_figure_db)
