"""Nakagami fading: from worse than Rayleigh to hardly any, by one number."""

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

_TABLE_POINTS = 1024
_TABLE_SPAN = (1e-12, 64.0)
"""Powers outside it have a probability below 1e-12 and are taken to be at its ends."""


class NakagamiConfig(ScatteringConfig):
    """Fading of a given depth."""

    kind: Literal["nakagami"] = "nakagami"
    m: float = Field(
        ge=0.5,
        le=100,
        description="Shape: the inverse of the amount of fading. 1 is Rayleigh, 0.5 the deepest "
        "fading there is, large values hardly any.",
    )

    def envelope(self) -> Envelope:
        """Return the power with that amount of fading."""
        return NakagamiEnvelope(self.m)


class NakagamiEnvelope:
    """Power with the gamma distribution of shape ``m`` and mean 1, an amount of fading of 1/m.

    M. Nakagami, "The m-distribution", in Statistical Methods in Radio Wave Propagation, 1960. It
    has no waves of its own: the power of scattered waves is mapped to the one that is exceeded as
    often, through a table over the logarithm. That keeps fades where the waves have them and is
    the identity at ``m = 1``.
    """

    def __init__(self, m: float) -> None:
        # scipy takes a while to import, which runs with other models need not wait for.
        from scipy import special  # noqa: PLC0415

        self._special = special
        self._m = m
        scattered = np.geomspace(*_TABLE_SPAN, _TABLE_POINTS)
        # Each from the tail that it lies in: the other one rounds to 1.
        low = special.gammaincinv(m, -np.expm1(-scattered)) / m
        high = special.gammainccinv(m, np.exp(-scattered)) / m
        self._log_scattered = np.log(scattered)
        self._log_power = np.log(np.where(scattered < 0.5, low, high))

    @property
    def law(self) -> FadingLaw:
        """The gamma distribution of mean 1."""
        return law_of(
            self._density,
            float(self._special.gammaincinv(self._m, LEAST_QUANTILE)) / self._m,
            float(self._special.gammainccinv(self._m, MOST_QUANTILE_COMPLEMENT)) / self._m,
        )

    def _density(self, power: FloatArray) -> FloatArray:
        m = self._m
        log_gamma = self._special.gammaln(m)
        log_density = m * np.log(m) + (m - 1) * np.log(power) - m * power - log_gamma
        density: FloatArray = np.exp(log_density)
        return density

    def power(self, scattered: ComplexArray, direct_rad: FloatArray) -> FloatArray:
        """Return the mapped power of the scattered waves."""
        del direct_rad
        power = np.maximum(scattered.real**2 + scattered.imag**2, _TABLE_SPAN[0])
        mapped: FloatArray = np.exp(np.interp(np.log(power), self._log_scattered, self._log_power))
        return mapped
