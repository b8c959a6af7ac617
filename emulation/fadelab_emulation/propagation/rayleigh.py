"""Rayleigh fading: many scattered waves and no direct one."""

import math
from typing import Literal

import numpy as np

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import FadingLaw
from fadelab_emulation.propagation.scattering import (
    LEAST_QUANTILE,
    MOST_QUANTILE_COMPLEMENT,
    ComplexArray,
    Envelope,
    ScatteringConfig,
    law_of,
)


class RayleighConfig(ScatteringConfig):
    """Many scattered waves and no line of sight."""

    kind: Literal["rayleigh"] = "rayleigh"

    def envelope(self) -> Envelope:
        """Return the power of scattered waves alone."""
        return RayleighEnvelope()


class RayleighEnvelope:
    """Power with the exponential distribution, an amount of fading of 1."""

    @property
    def law(self) -> FadingLaw:
        """The exponential distribution of mean 1."""
        return law_of(
            lambda power: np.exp(-power),
            -math.log1p(-LEAST_QUANTILE),
            -math.log(MOST_QUANTILE_COMPLEMENT),
        )

    def power(self, scattered: ComplexArray, direct_rad: FloatArray) -> FloatArray:
        """Return the power of the scattered waves."""
        del direct_rad
        return scattered.real**2 + scattered.imag**2
