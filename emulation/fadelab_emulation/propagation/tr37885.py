"""Vehicles on highways and in cities as 3GPP sees them: TR 37.885, with vehicles in the way.

3GPP TR 37.885 V15.3.0: path loss and shadowing of table 6.2.1-1, probability of line of sight of
table 6.2-1, blockage by vehicles of clause 6.2.1. A link is in sight (LOS), has a vehicle in its
way (NLOSv), or has buildings in its way (NLOS). A base station counts as a roadside unit.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.propagation.base import ChannelDraw, MeanLoss, PathLossConfig
from fadelab_emulation.propagation.correlated import CorrelatedNormal
from fadelab_emulation.propagation.line_of_sight import (
    LINE_OF_SIGHT_CORRELATION_M,
    LineOfSight,
    LineOfSightChoice,
)
from fadelab_emulation.scene import Geometry, Scene

CAR_HEIGHT_M = 1.6
"""Vehicle types 1 and 2."""
LORRY_HEIGHT_M = 3.0
"""Vehicle type 3."""
SIGHT_SHADOWING_DB = 3.0
"""With line of sight, and past a vehicle."""
BUILDINGS_SHADOWING_DB = 4.0


class Tr37885Config(PathLossConfig):
    """Roads: line of sight, a vehicle in the way, or buildings in the way (3GPP TR 37.885)."""

    kind: Literal["tr37885"] = "tr37885"
    scenario: Literal["urban", "highway"] = Field(
        default="urban", description="Kind of road, with path loss and odds of vehicles of its own."
    )
    line_of_sight: LineOfSightChoice = Field(
        default="random",
        description="Within a street. random: by the standard's probability over distance; "
        "always: no vehicle in the way; never: always one.",
    )
    lorry_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Part of the vehicles in the way that are 3 m high; the others are 1.6 m.",
    )
    street_width_m: float | None = Field(
        default=None,
        ge=0,
        description="Devices that are further than half of it from a base station both along x "
        "and along y are in another street, with buildings in the way; 0: all are. Left out: all "
        "are in the base station's street.",
    )

    @model_validator(mode="after")
    def _streets_are_urban(self) -> Self:
        if self.scenario == "highway" and self.street_width_m is not None:
            raise ValueError(
                "street_width_m is for the urban scenario: a highway has no buildings beside it"
            )
        return self

    def build(self, scene: Scene) -> "Tr37885":
        """Return the model."""
        return Tr37885(self, scene)


class Tr37885:
    """Path loss by the state of each link."""

    def __init__(self, config: Tr37885Config, scene: Scene) -> None:
        self._config = config
        self._log_carrier = math.log10(scene.carrier_hz / 1e9)
        self._line_of_sight = LineOfSight(config.line_of_sight, scene)
        self._blockage = VehicleBlockage(config.lorry_share, scene)

    def advance(self, geometry: Geometry, motion: Motion) -> MeanLoss:
        """Return loss and shadowing's deviation, shape ``(devices, sites)``."""
        config = self._config
        log_distance = np.log10(np.maximum(geometry.distance_m, 1.0))  # finite at the antenna
        urban = config.scenario == "urban"
        probability = sight_probability(geometry.horizontal_m, urban=urban)
        in_sight = self._line_of_sight.advance(probability, motion.travelled_m)
        street_db = self._street_db(log_distance, urban=urban)
        vehicle_db = self._blockage.advance(log_distance, motion.travelled_m)
        loss_db = street_db + np.where(in_sight, 0.0, vehicle_db)
        elsewhere = self._elsewhere(geometry)
        if elsewhere is None:
            return MeanLoss(loss_db, np.full(loss_db.shape, SIGHT_SHADOWING_DB))
        buildings_db = 36.85 + 30 * log_distance + 18.9 * self._log_carrier
        return MeanLoss(
            np.where(elsewhere, buildings_db, loss_db),
            np.where(elsewhere, BUILDINGS_SHADOWING_DB, SIGHT_SHADOWING_DB),
        )

    def _street_db(self, log_distance: FloatArray, *, urban: bool) -> FloatArray:
        """Return the loss with line of sight."""
        if urban:
            return 38.77 + 16.7 * log_distance + 18.2 * self._log_carrier
        return 32.4 + 20 * log_distance + 20 * self._log_carrier

    def _elsewhere(self, geometry: Geometry) -> BoolArray | None:
        """Return which links have buildings in their way; None where there are no buildings."""
        width_m = self._config.street_width_m
        if width_m is None:
            return None
        aside_m = np.abs(geometry.offset_m)
        return np.minimum(aside_m[..., 0], aside_m[..., 1]) > width_m / 2


def sight_probability(ground_m: FloatArray, *, urban: bool) -> FloatArray:
    """Return the probability that no vehicle is in the way, any shape (table 6.2-1)."""
    if urban:
        return np.minimum(1.0, 1.05 * np.exp(-0.0114 * ground_m))
    near = np.minimum(1.0, 2.1013e-6 * ground_m**2 - 0.002 * ground_m + 1.0193)
    far = np.maximum(0.0, 0.54 - 0.001 * (ground_m - 475))
    return np.where(ground_m <= 475, near, far)


@dataclass(frozen=True, slots=True)
class BlockageLaw:
    """Loss behind a vehicle: normal in dB, its mean growing from 545 m on, never below 0."""

    mean_db: float
    std_db: float

    def loss_db(self, log_distance: FloatArray, normal: FloatArray) -> FloatArray:
        """Return the loss for standard normal values, at ``log10`` of the distance in metres."""
        mean_db = self.mean_db + np.maximum(0.0, 15 * log_distance - 41)
        loss_db: FloatArray = np.maximum(0.0, mean_db + self.std_db * normal)
        return loss_db


def blockage_law(
    site_height_m: float, device_height_m: float, vehicle_height_m: float
) -> BlockageLaw | None:
    """Return the loss by a vehicle of that height; None where both antennas look over it."""
    if min(site_height_m, device_height_m) > vehicle_height_m:
        return None
    if max(site_height_m, device_height_m) < vehicle_height_m:
        return BlockageLaw(9.0, 4.5)
    return BlockageLaw(5.0, 4.0)


class VehicleBlockage:
    """What vehicles in the way cost each link; changes along the device's path."""

    def __init__(self, lorry_share: float, scene: Scene) -> None:
        # scipy takes a while to import, which runs with other models need not wait for.
        from scipy import special  # noqa: PLC0415

        heights_m = scene.site_height_m, scene.device_height_m
        self._lorry_share = lorry_share
        self._lorry_below = float(special.ndtri(lorry_share))
        self._car = blockage_law(*heights_m, CAR_HEIGHT_M)
        self._lorry = blockage_law(*heights_m, LORRY_HEIGHT_M)
        self._loss, self._type = (
            CorrelatedNormal(scene, LINE_OF_SIGHT_CORRELATION_M, ChannelDraw.BLOCKAGE, key)
            for key in (0, 1)
        )

    def advance(self, log_distance: FloatArray, travelled_m: FloatArray) -> FloatArray:
        """Return the loss at the next instant if a vehicle is in the way."""
        normal = self._loss.advance(travelled_m)
        if self._lorry_share == 0 or self._car == self._lorry:
            return _loss_db(self._car, log_distance, normal)
        is_lorry = self._type.advance(travelled_m) < self._lorry_below
        return np.where(
            is_lorry,
            _loss_db(self._lorry, log_distance, normal),
            _loss_db(self._car, log_distance, normal),
        )


def _loss_db(law: BlockageLaw | None, log_distance: FloatArray, normal: FloatArray) -> FloatArray:
    return np.zeros_like(normal) if law is None else law.loss_db(log_distance, normal)
