"""Random waypoint: go straight to a random place, pause, go on. Stationary from the first second.

Started at uniform positions with uniform speeds, the model drifts: slow legs last longer, so the
mean speed decays, and devices gather in the centre. Drawing the start from the stationary law
avoids any warm-up (W. Navidi and T. Camp, "Stationary distributions for the random waypoint
mobility model", IEEE Trans. Mobile Computing 3(1), 2004).
"""

import math
from typing import Literal

from numpy.random import Generator
from pydantic import Field

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.base import MobilityConfig
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


class RandomWaypointConfig(MobilityConfig):
    """Devices that go straight to random places, pausing at each."""

    kind: Literal["random_waypoint"] = "random_waypoint"
    speed_mps: SpeedRange = Field(
        description="Least and greatest speed; uniform, drawn for each leg. The least must be "
        "above 0: with 0, the mean speed of all devices would decay to a standstill."
    )
    pause_s: DurationRangeFromZero = Field(
        default=(0.0, 0.0),
        description="Least and greatest pause; uniform, drawn for each waypoint.",
    )

    def build(self, scene: Scene) -> "RandomWaypoint":
        """Return devices drawn from the stationary law."""
        return RandomWaypoint(self, scene)


class RandomWaypoint(Legs):
    """Devices on legs between uniform random waypoints."""

    def __init__(self, config: RandomWaypointConfig, scene: Scene) -> None:
        super().__init__(scene)
        self._config = config
        self._waypoint_m = self._position_m.copy()
        self._moving = [False] * scene.devices
        self._pause_s = [0.0] * scene.devices  # at the end of the present leg
        pausing = pause_probability(config, scene.area_m)
        for device in range(scene.devices):
            self._start(device, pausing)

    def _turn(self, device: int) -> None:
        """Begin the pause after a leg, or the leg after a pause."""
        if self._moving[device]:
            self._position_m[device] = self._waypoint_m[device]
            self._velocity_mps[device] = 0.0
            self._moving[device] = False
            self._left_s[device] = self._pause_s[device]
            return
        draw = self._draw_next(device)
        speed_mps = draw_between(self._config.speed_mps, draw)
        self._depart(device, draw.random(2) * self._area_m, speed_mps, draw)

    def _depart(
        self, device: int, waypoint_m: FloatArray, speed_mps: float, draw: Generator
    ) -> None:
        way_m = waypoint_m - self._position_m[device]
        length_m = math.hypot(way_m[0], way_m[1])
        self._waypoint_m[device] = waypoint_m
        self._velocity_mps[device] = way_m * (speed_mps / length_m)
        self._moving[device] = True
        self._left_s[device] = length_m / speed_mps
        self._pause_s[device] = draw_between(self._config.pause_s, draw)

    def _start(self, device: int, pausing: float) -> None:
        """Put a device into the stationary law (Navidi and Camp 2004, sections 3 and 4).

        Pausing: anywhere, with the residual of a length-biased pause. Moving: ends of the leg
        with density proportional to its length (by rejection), anywhere on it, with a speed of
        density proportional to 1/speed.
        """
        draw = self._draw(device)
        if draw.random() < pausing:
            self._left_s[device] = draw_rest_s(self._config.pause_s, draw)
            self._position_m[device] = draw.random(2) * self._area_m
            return
        diagonal_m = math.hypot(*self._area_m)
        while True:
            ends_m = draw.random((2, 2)) * self._area_m
            if draw.random() * diagonal_m < math.dist(ends_m[0], ends_m[1]):
                break
        speed_mps = draw_speed_in_time(self._config.speed_mps, draw)
        self._position_m[device] = ends_m[0] + (ends_m[1] - ends_m[0]) * draw.random()
        self._depart(device, ends_m[1], speed_mps, draw)


def pause_probability(config: RandomWaypointConfig, area_m: tuple[float, float]) -> float:
    """Return the share of time a device pauses: mean pause over mean pause and travel.

    Speed and length of a leg are independent, so its mean duration is mean length times mean
    inverse speed.
    """
    travel_s = mean_leg_m(area_m) * mean_inverse_speed(config.speed_mps)
    pause_s = sum(config.pause_s) / 2
    return pause_s / (pause_s + travel_s)


def mean_leg_m(area_m: tuple[float, float]) -> float:
    """Return the mean distance of two uniform points in a rectangle, metres.

    B. Ghosh, "Random distances within a rectangle and between two rectangles", Bull. Calcutta
    Math. Soc. 43, 1951. For the unit square: 0.5214.
    """
    a, b = area_m
    d = math.hypot(a, b)
    polynomial = a**3 / b**2 + b**3 / a**2 + d * (3 - (a / b) ** 2 - (b / a) ** 2)
    logarithms = b**2 / a * math.log((a + d) / b) + a**2 / b * math.log((b + d) / a)
    return (polynomial + 2.5 * logarithms) / 15
