"""Devices that stand still, at listed places, at random ones or at one distance."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.base import MobilityConfig, Motion
from fadelab_emulation.scene import Scene
from fadelab_proto.config import StrictModel
from fadelab_proto.seeds import Stream, generator


class Placement(StrictModel, ABC):
    """The base of every way to place standing devices."""

    def check_fits(self, area_m: tuple[float, float], base_station_m: tuple[float, float]) -> None:
        """Raise ValueError if a device would stand outside the area."""

    @abstractmethod
    def place(self, scene: Scene) -> FloatArray:
        """Return the positions in metres, shape ``(devices, 2)``."""


class ListedPlacement(Placement):
    """Every device at a place of its own, given in the experiment."""

    kind: Literal["listed"] = "listed"
    positions_m: list[tuple[float, float]] = Field(
        min_length=1, description="x and y of device 0, 1, ...: one pair per device."
    )

    def check_fits(self, area_m: tuple[float, float], base_station_m: tuple[float, float]) -> None:
        """Raise ValueError if a listed position lies outside the area."""
        del base_station_m
        width_m, height_m = area_m
        for x_m, y_m in self.positions_m:
            if not (0 <= x_m <= width_m and 0 <= y_m <= height_m):
                raise ValueError(
                    f"the position ({x_m:g}, {y_m:g}) lies outside the area of "
                    f"{width_m:g} m x {height_m:g} m"
                )

    def place(self, scene: Scene) -> FloatArray:
        """Return the listed positions; ValueError unless there is one per device."""
        if len(self.positions_m) != scene.devices:
            raise ValueError(
                f"the placement lists {len(self.positions_m)} positions "
                f"but the experiment has {scene.devices} devices"
            )
        return np.asarray(self.positions_m, dtype=np.float64)


class UniformPlacement(Placement):
    """Every device at a random place, all places of the area being equally likely."""

    kind: Literal["uniform"] = "uniform"

    def place(self, scene: Scene) -> FloatArray:
        """Draw the positions; a device's place does not depend on how many others there are."""
        fractions = generator(scene.seed, Stream.MOBILITY, 0).random((scene.devices, 2))
        return fractions * np.asarray(scene.area_m, dtype=np.float64)


class RingPlacement(Placement):
    """All devices at the same distance, evenly round the base station, device 0 in the east."""

    kind: Literal["ring"] = "ring"
    distance_m: float = Field(gt=0, description="Distance of every device to the base station.")

    def check_fits(self, area_m: tuple[float, float], base_station_m: tuple[float, float]) -> None:
        """Raise ValueError if the ring leaves the area."""
        room_m = min(
            min(centre_m, side_m - centre_m)
            for centre_m, side_m in zip(base_station_m, area_m, strict=True)
        )
        if self.distance_m > room_m:
            raise ValueError(
                f"a ring of {self.distance_m:g} m round the base station leaves the area: "
                f"the nearest edge is {room_m:g} m away"
            )

    def place(self, scene: Scene) -> FloatArray:
        """Return the points of the ring."""
        angle = 2 * np.pi * np.arange(scene.devices) / scene.devices
        ring_m = self.distance_m * np.column_stack([np.cos(angle), np.sin(angle)])
        places_m: FloatArray = scene.sites_m[0] + ring_m
        return places_m


class StaticConfig(MobilityConfig):
    """Devices that never move."""

    kind: Literal["static"] = "static"
    placement: Annotated[
        ListedPlacement | UniformPlacement | RingPlacement, Field(discriminator="kind")
    ] = Field(default=UniformPlacement(), description="Where the devices stand.")

    def check_fits(self, area_m: tuple[float, float], base_station_m: tuple[float, float]) -> None:
        """Raise ValueError if a device would stand outside the area."""
        self.placement.check_fits(area_m, base_station_m)

    def build(self, scene: Scene) -> "Static":
        """Return devices standing at their places."""
        return Static(self.placement.place(scene))


class Static:
    """Devices that stand at ``position_m``, shape ``(devices, 2)``, for ever."""

    def __init__(self, position_m: FloatArray) -> None:
        self._motion = Motion(
            position_m=position_m,
            velocity_mps=np.zeros_like(position_m),
            travelled_m=np.zeros(len(position_m)),
        )

    def advance(self, duration_s: float) -> Motion:
        """Return the same motion whatever the duration."""
        del duration_s
        return self._motion
