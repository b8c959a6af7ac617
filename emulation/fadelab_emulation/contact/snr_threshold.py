"""Contact while a base station is received well enough, with hysteresis and handover."""

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.contact.base import ContactState, Sight
from fadelab_emulation.contact.course import remaining_contact_s
from fadelab_emulation.contact.serving import CellularConfig, Limits, Serving
from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.scene import Geometry, Scene


class SnrThresholdConfig(CellularConfig):
    """Links that are open above a signal-to-noise ratio; the best base station serves."""

    kind: Literal["snr_threshold"] = "snr_threshold"
    needs_snr: ClassVar[bool] = True
    threshold_db: float = Field(
        ge=-50, le=100, description="Mean downlink SNR from which a closed link opens."
    )
    hysteresis_db: float = Field(
        default=3.0,
        ge=0,
        le=50,
        description="An open link closes only this much below the threshold, so that shadowing "
        "does not make it flap.",
    )
    handover_margin_db: float = Field(
        default=3.0,
        ge=0,
        le=50,
        description="How much better another base station must be for a handover to it.",
    )
    forecast_exponent: float = Field(
        default=3.0,
        ge=1,
        le=8,
        description="Path-loss exponent with which devices extrapolate the SNR they measure to "
        "the place where it will have fallen too far.",
    )

    def build(self, scene: Scene) -> "SnrThreshold":
        """Return the model with every link closed before the first instant."""
        return SnrThreshold(self, scene)


class SnrThreshold:
    """Open from ``threshold_db`` on until below ``threshold_db - hysteresis_db``.

    The prediction is what a device can compute that knows where the sites are and what it
    receives of each: it takes the SNR to fall with ``10 * forecast_exponent`` dB per decade of
    distance from what it is now, which gives each site a radius at which the link would close,
    and itself to keep its course. Without shadowing and with the true exponent this is exact for
    a straight way; with shadowing the first dip on the way ends the contact earlier on average.
    Interruptions by handovers are not foreseen: the network orders them.
    """

    def __init__(self, config: SnrThresholdConfig, scene: Scene) -> None:
        self._closes_db = config.threshold_db - config.hysteresis_db
        self._exponent = config.forecast_exponent
        limits = Limits(config.threshold_db, self._closes_db, config.handover_margin_db)
        self._serving = Serving(config, limits, scene.devices, scene.sites)

    def update(self, sight: Sight) -> ContactState:
        """Open and close links by SNR; predict the end from SNR, position and velocity."""
        geometry, motion = sight.geometry, sight.motion
        is_open, site = self._serving.update(sight.t_s, sight.snr_db, motion.present)
        predicted_s = np.zeros(len(site))
        rows = np.flatnonzero(is_open)
        seen = Geometry(
            geometry.offset_m[rows], geometry.horizontal_m[rows], geometry.distance_m[rows]
        )
        predicted_s[rows] = remaining_contact_s(
            seen.offset_m, motion.velocity_mps[rows], self._radius_m(seen, sight.snr_db[rows])
        )
        return ContactState(is_open, site, predicted_s)

    def _radius_m(self, geometry: Geometry, snr_db: FloatArray) -> FloatArray:
        """Return the distance on the ground at which each site's SNR will be too low."""
        decades = (snr_db - self._closes_db) / (10 * self._exponent)
        reach_m2 = (geometry.distance_m * np.exp(math.log(10) * decades)) ** 2
        rise_m2 = geometry.distance_m**2 - geometry.horizontal_m**2
        radius_m: FloatArray = np.sqrt(np.maximum(reach_m2 - rise_m2, 0.0))
        return radius_m
