"""Contact within a disc round the base station, with hysteresis at its edge."""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fadelab_emulation.contact.base import (
    CONTACT_HORIZON_S,
    ContactConfig,
    ContactState,
    Sight,
    nearest_site,
)
from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.scene import Scene


class CoverageConfig(ContactConfig):
    """Links that are open within a radius of the base station."""

    kind: Literal["coverage"] = "coverage"
    radius_m: float = Field(gt=0, description="An open link closes beyond this distance.")
    hysteresis_m: float = Field(
        default=0.0,
        ge=0,
        description="A closed link opens only once the device is this much inside the radius, "
        "so that moving along the edge does not make it flap.",
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
    """Open while within ``radius_m``; reopened within ``radius_m - hysteresis_m``.

    Without hysteresis, straight passes at speed v and uniform offset last pi R / 2v on average.
    """

    def __init__(self, config: CoverageConfig, scene: Scene) -> None:
        self._radius_m = config.radius_m
        self._opens_m = config.radius_m - config.hysteresis_m
        self._is_open = np.zeros(scene.devices, dtype=np.bool_)

    def update(self, sight: Sight) -> ContactState:
        """Open and close links by distance; predict the end from position and velocity."""
        site = nearest_site(sight.geometry)
        rows = np.arange(len(site))
        limit_m = np.where(self._is_open, self._radius_m, self._opens_m)
        self._is_open = sight.geometry.horizontal_m[rows, site] <= limit_m
        offset_m = sight.geometry.offset_m[rows, site]
        remaining_s = remaining_contact_s(offset_m, sight.motion.velocity_mps, self._radius_m)
        return ContactState(
            is_open=self._is_open,
            site=site,
            predicted_s=np.where(self._is_open, remaining_s, 0.0),
        )


def remaining_contact_s(
    offset_m: FloatArray, velocity_mps: FloatArray, radius_m: float
) -> FloatArray:
    """Return the time until a device that keeps its course leaves the disc.

    ``(-x.e + sqrt(R^2 - |x|^2 + (x.e)^2)) / v`` for position x relative to the centre, unit
    heading e and speed v: what a device can compute, knowing nothing of its future turns.

    Args:
        offset_m: positions relative to the disc's centre, inside it, shape ``(devices, 2)``.
        velocity_mps: shape ``(devices, 2)``.
        radius_m: the disc's radius.

    Returns:
        Seconds, shape ``(devices,)``, at most :data:`CONTACT_HORIZON_S`, which also stands for a
        device that does not move.

    """
    speed_mps = np.hypot(velocity_mps[:, 0], velocity_mps[:, 1])
    moves = speed_mps > 0
    divisor_mps = np.where(moves, speed_mps, 1.0)
    along_m = np.einsum("ij,ij->i", offset_m, velocity_mps) / divisor_mps
    inside_m2 = radius_m**2 - np.einsum("ij,ij->i", offset_m, offset_m)
    ahead_m = np.sqrt(np.maximum(inside_m2 + along_m**2, 0.0)) - along_m
    remaining_s = np.where(moves, ahead_m / divisor_mps, CONTACT_HORIZON_S)
    return np.clip(remaining_s, 0.0, CONTACT_HORIZON_S)
