"""Contact within discs round the base stations, with hysteresis at their edges."""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fadelab_emulation.contact.base import ContactState, Sight
from fadelab_emulation.contact.course import remaining_contact_s
from fadelab_emulation.contact.serving import CellularConfig, Limits, Serving
from fadelab_emulation.scene import Scene


class CoverageConfig(CellularConfig):
    """Links that are open within a radius of a base station; the nearest one serves."""

    kind: Literal["coverage"] = "coverage"
    radius_m: float = Field(gt=0, description="An open link closes beyond this distance.")
    hysteresis_m: float = Field(
        default=0.0,
        ge=0,
        description="A closed link opens only once the device is this much inside the radius, "
        "so that moving along the edge does not make it flap.",
    )
    handover_margin_m: float = Field(
        default=0.0,
        ge=0,
        description="How much nearer another base station must be for a handover to it.",
    )

    @model_validator(mode="after")
    def _disc_is_left(self) -> Self:
        if self.hysteresis_m >= self.radius_m:
            raise ValueError(
                f"a hysteresis of {self.hysteresis_m:g} m leaves nothing of a coverage radius "
                f"of {self.radius_m:g} m"
            )
        return self

    def build(self, scene: Scene) -> "Coverage":
        """Return the model with every link closed before the first instant."""
        return Coverage(self, scene)


class Coverage:
    """Open while within ``radius_m`` of any site; reopened within ``radius_m - hysteresis_m``.

    Without hysteresis, straight passes of one site at speed v and uniform offset last
    pi R / 2v on average. The prediction takes discs that overlap on the way as one contact; it
    knows nothing of turns to come, nor of the interruptions by handovers, which the network
    orders.
    """

    def __init__(self, config: CoverageConfig, scene: Scene) -> None:
        self._radius_m = config.radius_m
        limits = Limits(
            opens=config.hysteresis_m - config.radius_m,
            closes=-config.radius_m,
            margin=config.handover_margin_m,
        )
        self._serving = Serving(config, limits, scene.devices, scene.sites)

    def update(self, sight: Sight) -> ContactState:
        """Open and close links by distance; predict the end from position and velocity."""
        geometry, motion = sight.geometry, sight.motion
        is_open, site = self._serving.update(sight.t_s, -geometry.horizontal_m, motion.present)
        predicted_s = np.zeros(len(site))
        rows = np.flatnonzero(is_open)
        predicted_s[rows] = remaining_contact_s(
            geometry.offset_m[rows], motion.velocity_mps[rows], self._radius_m
        )
        return ContactState(is_open, site, predicted_s)
