"""A straight highway along x: lanes in both directions, each vehicle at a speed of its own.

The road of the highway scenario of 3GPP TR 37.885, 6.1.2 (three lanes of 4 m each way), with
vehicles that neither follow nor hinder each other.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import BoolArray
from fadelab_emulation.mobility.base import MobilityConfig, Motion
from fadelab_emulation.mobility.legs import Legs
from fadelab_emulation.mobility.ranges import (
    DurationRangeFromZero,
    SpeedRange,
    draw_between,
    draw_rest_s,
    draw_speed_in_time,
    mean_inverse_speed,
)
from fadelab_emulation.scene import Scene


class HighwayConfig(MobilityConfig):
    """Vehicles on the lanes of a straight road, driving on the right."""

    kind: Literal["highway"] = "highway"
    lanes_per_direction: int = Field(default=3, ge=1, le=16, description="Lanes each way.")
    lane_width_m: float = Field(default=4.0, gt=0, le=100, description="Width of a lane.")
    centre_y_m: float | None = Field(
        default=None,
        description="y of the line between the directions; left out: the area's middle.",
    )
    speed_mps: SpeedRange = Field(
        description="Least and greatest speed; uniform, drawn for each pass of the road."
    )
    speed_west_mps: SpeedRange | None = Field(
        default=None,
        description="The same for the lanes that run towards smaller x, if it differs.",
    )
    away_s: DurationRangeFromZero = Field(
        default=(0.0, 0.0),
        description="Least and greatest time from leaving the area at one end to entering at the "
        "other; uniform.",
    )

    def check_fits(self, area_m: tuple[float, float], base_station_m: tuple[float, float]) -> None:
        """Raise ValueError if the road is not wholly inside the area."""
        del base_station_m
        centre_m = self._centre_m(area_m)
        half_m = self.lanes_per_direction * self.lane_width_m
        if centre_m - half_m < 0 or centre_m + half_m > area_m[1]:
            raise ValueError(
                f"a highway of {2 * half_m:g} m width round y = {centre_m:g} m leaves the area, "
                f"whose height is {area_m[1]:g} m"
            )

    def lane_y_m(self, lane: int, area_m: tuple[float, float]) -> float:
        """Return the y of a lane's middle; even lanes run east, odd ones west, from the centre."""
        side = 1 if lane % 2 else -1
        return self._centre_m(area_m) + side * (lane // 2 + 0.5) * self.lane_width_m

    def _centre_m(self, area_m: tuple[float, float]) -> float:
        return area_m[1] / 2 if self.centre_y_m is None else self.centre_y_m

    def build(self, scene: Scene) -> "Highway":
        """Return vehicles drawn from the stationary law, spread evenly over the lanes in turn."""
        return Highway(self, scene)


class Highway(Legs):
    """Vehicles that cross the area, and come back at its other end as others on the same lane.

    The one that comes back is a new vehicle: it has a new speed, and the way from end to end counts
    as travelled, so that nothing of its channel is remembered.
    """

    def __init__(self, config: HighwayConfig, scene: Scene) -> None:
        super().__init__(scene)
        self._config = config
        self._length_m = scene.area_m[0]
        self._present = np.ones(scene.devices, dtype=np.bool_)
        lanes = 2 * config.lanes_per_direction
        lane_y_m = [config.lane_y_m(lane, scene.area_m) for lane in range(lanes)]
        for device in range(scene.devices):
            self._position_m[device, 1] = lane_y_m[device % lanes]
            self._start(device)

    def _motion(self, present: BoolArray | None = None) -> Motion:
        del present
        return super()._motion(None if self._present.all() else self._present.copy())

    def _start(self, device: int) -> None:
        draw = self._draw(device)
        away_s = sum(self._config.away_s) / 2
        pass_s = self._length_m * mean_inverse_speed(self._speeds_mps(device))
        if draw.random() < away_s / (away_s + pass_s):
            self._leave(device, draw_rest_s(self._config.away_s, draw))
            return
        self._enter(device, draw_speed_in_time(self._speeds_mps(device), draw), draw.random())

    def _turn(self, device: int) -> None:
        """Leave at the end of the road, or enter at its beginning."""
        if self._present[device]:
            away_s = draw_between(self._config.away_s, self._draw_next(device))
            if away_s > 0:
                self._leave(device, away_s)
                return
        speed_mps = draw_between(self._speeds_mps(device), self._draw_next(device))
        self._enter(device, speed_mps, 0.0)
        self._travelled_m[device] += self._length_m

    def _leave(self, device: int, away_s: float) -> None:
        self._present[device] = False
        self._position_m[device, 0] = self._length_m if self._runs_east(device) else 0.0
        self._velocity_mps[device] = 0.0
        self._left_s[device] = away_s

    def _enter(self, device: int, speed_mps: float, gone: float) -> None:
        """Put a vehicle on its lane, of which it has gone a part from 0 to 1."""
        self._present[device] = True
        east = self._runs_east(device)
        self._position_m[device, 0] = self._length_m * (gone if east else 1 - gone)
        self._velocity_mps[device] = speed_mps if east else -speed_mps, 0.0
        self._left_s[device] = self._length_m * (1 - gone) / speed_mps

    def _speeds_mps(self, device: int) -> tuple[float, float]:
        config = self._config
        if self._runs_east(device) or config.speed_west_mps is None:
            return config.speed_mps
        return config.speed_west_mps

    @staticmethod
    def _runs_east(device: int) -> bool:
        return device % 2 == 0
