"""Rician fading: a direct wave among scattered ones."""

import math
from typing import Literal

import numpy as np
from pydantic import Field

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


class RicianConfig(ScatteringConfig):
    """A direct wave among many scattered ones."""

    kind: Literal["rician"] = "rician"
    k_factor_db: float = Field(
        ge=-40,
        le=30,
        description="Power of the direct wave over that of all scattered ones together; 3GPP TR "
        "38.901 has 9 dB on average in streets with line of sight.",
    )

    def envelope(self) -> Envelope:
        """Return the power of direct and scattered waves."""
        return RicianEnvelope(10 ** (self.k_factor_db / 10))


class RicianEnvelope:
    """Power with an amount of fading of ``(1 + 2 K) / (1 + K)**2``.

    S. O. Rice, "Mathematical analysis of random noise", Bell Syst. Tech. J. 23(3), 1944; the
    density as in M. K. Simon and M.-S. Alouini, "Digital Communication over Fading Channels",
    2nd ed., eq. (2.16).
    """

    def __init__(self, k_factor: float) -> None:
        # scipy takes a while to import, which runs with other models need not wait for.
        from scipy import special  # noqa: PLC0415

        self._special = special
        self._k = k_factor
        self._direct = math.sqrt(k_factor / (1 + k_factor))
        self._scattered = math.sqrt(1 / (1 + k_factor))

    @property
    def law(self) -> FadingLaw:
        """A noncentral chi-square distribution of two degrees of freedom, scaled to mean 1."""
        scale = 2 * (1 + self._k)
        least, most = (
            float(self._special.chndtrix(probability, 2, 2 * self._k)) / scale
            for probability in (LEAST_QUANTILE, 1 - MOST_QUANTILE_COMPLEMENT)
        )
        return law_of(self._density, least, most)

    def _density(self, power: FloatArray) -> FloatArray:
        root = np.sqrt((1 + self._k) * power)
        # i0e(x) is I0(x) exp(-x): the exponentials together are a square and cannot overflow.
        decay = np.exp(-((root - math.sqrt(self._k)) ** 2))
        bessel = self._special.i0e(2 * math.sqrt(self._k) * root)
        density: FloatArray = (1 + self._k) * decay * bessel
        return density

    def power(self, scattered: ComplexArray, direct_rad: FloatArray) -> FloatArray:
        """Return the power of direct and scattered waves."""
        real = self._direct * np.cos(direct_rad) + self._scattered * scattered.real
        imaginary = self._direct * np.sin(direct_rad) + self._scattered * scattered.imag
        power: FloatArray = real**2 + imaginary**2
        return power
