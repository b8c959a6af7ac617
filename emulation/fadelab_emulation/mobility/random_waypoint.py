"""Random waypoint: go straight to a random place, pause, go on. Stationary from the first second.

Started at uniform positions with uniform speeds, the model drifts: slow legs last longer, so the
mean speed decays, and devices gather in the centre. Drawing the start from the stationary law
avoids any warm-up (W. Navidi and T. Camp, "Stationary distributions for the random waypoint
mobility model", IEEE Trans. Mobile Computing 3(1), 2004).
"""

import math
from typing import Annotated, Literal

import numpy as np
from numpy.random import Generator
from pydantic import AfterValidator, Field

from fadelab_emulation.mobility.base import MobilityConfig, Motion
from fadelab_emulation.scene import Scene
from fadelab_proto.seeds import Stream, generator


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"the smaller bound comes first, but {bounds[0]:g} is greater than {bounds[1]:g}"
        )
    return bounds


_Speed = Annotated[float, Field(gt=0, le=1000)]
_Pause = Annotated[float, Field(ge=0)]


class RandomWaypointConfig(MobilityConfig):
    """Devices that go straight to random places, pausing at each."""

    kind: Literal["random_waypoint"] = "random_waypoint"
    speed_mps: Annotated[tuple[_Speed, _Speed], AfterValidator(_ordered)] = Field(
        description="Least and greatest speed; uniform, drawn for each leg. The least must be "
        "above 0: with 0, the mean speed of all devices would decay to a standstill."
    )
    pause_s: Annotated[tuple[_Pause, _Pause], AfterValidator(_ordered)] = Field(
        default=(0.0, 0.0),
        description="Least and greatest pause; uniform, drawn for each waypoint.",
    )

    def build(self, scene: Scene) -> "RandomWaypoint":
        """Return devices drawn from the stationary law."""
        return RandomWaypoint(self, scene)


class RandomWaypoint:
    """Devices on legs between uniform random waypoints.

    A device's path depends on the seed and its own number alone: neither the number of devices nor
    the tick changes it (beyond rounding), for each leg draws from a generator of its own.
    """

    def __init__(self, config: RandomWaypointConfig, scene: Scene) -> None:
        self._config = config
        self._seed = scene.seed
        self._area_m = np.asarray(scene.area_m)
        shape = scene.devices
        self._position_m = np.zeros((shape, 2))
        self._waypoint_m = np.zeros((shape, 2))
        self._velocity_mps = np.zeros((shape, 2))
        self._moving = np.zeros(shape, dtype=np.bool_)
        self._left_s = np.zeros(shape)  # until the present leg or pause ends
        self._pause_s = np.zeros(shape)  # at the end of the present leg
        self._leg = np.zeros(shape, dtype=np.int64)
        pausing = pause_probability(config, scene.area_m)
        for device in range(scene.devices):
            self._start(device, pausing)

    def advance(self, duration_s: float) -> Motion:
        """Move every device by ``duration_s``, through as many waypoints as it reaches."""
        remaining_s = np.full(len(self._leg), duration_s)
        travelled_m = np.zeros(len(self._leg))
        while True:
            step_s = np.minimum(remaining_s, self._left_s)
            moved_m = self._velocity_mps * step_s[:, None]
            self._position_m += moved_m
            travelled_m += np.hypot(moved_m[:, 0], moved_m[:, 1])
            remaining_s -= step_s
            self._left_s -= step_s
            ended = np.flatnonzero(self._left_s == 0)
            if ended.size == 0:
                break
            for device in ended:
                self._next(int(device))
        # Rounding may carry a device past an edge it moves along by one unit in the last place.
        np.clip(self._position_m, 0.0, self._area_m, out=self._position_m)
        return Motion(self._position_m.copy(), self._velocity_mps.copy(), travelled_m)

    def _next(self, device: int) -> None:
        """Begin the pause after a leg, or the leg after a pause."""
        if self._moving[device]:
            self._position_m[device] = self._waypoint_m[device]
            self._velocity_mps[device] = 0.0
            self._moving[device] = False
            self._left_s[device] = self._pause_s[device]
            return
        self._leg[device] += 1
        draw = self._generator(device)
        least, greatest = self._config.speed_mps
        speed_mps = least + (greatest - least) * draw.random()
        self._depart(device, draw.random(2) * self._area_m, speed_mps, draw)

    def _depart(
        self, device: int, waypoint_m: np.ndarray, speed_mps: float, draw: Generator
    ) -> None:
        way_m = waypoint_m - self._position_m[device]
        length_m = math.hypot(way_m[0], way_m[1])
        least, greatest = self._config.pause_s
        self._waypoint_m[device] = waypoint_m
        self._velocity_mps[device] = way_m * (speed_mps / length_m)
        self._moving[device] = True
        self._left_s[device] = length_m / speed_mps
        self._pause_s[device] = least + (greatest - least) * draw.random()

    def _start(self, device: int, pausing: float) -> None:
        """Put a device into the stationary law (Navidi and Camp 2004, sections 3 and 4).

        Pausing: anywhere, with the residual of a length-biased pause. Moving: ends of the leg
        with density proportional to its length (by rejection), anywhere on it, with a speed of
        density proportional to 1/speed.
        """
        draw = self._generator(device)
        if draw.random() < pausing:
            least, greatest = self._config.pause_s
            whole_s = math.sqrt(least**2 + (greatest**2 - least**2) * draw.random())
            self._position_m[device] = draw.random(2) * self._area_m
            self._left_s[device] = whole_s * draw.random()
            return
        diagonal_m = math.hypot(*self._area_m)
        while True:
            ends_m = draw.random((2, 2)) * self._area_m
            if draw.random() * diagonal_m < math.dist(ends_m[0], ends_m[1]):
                break
        least, greatest = self._config.speed_mps
        speed_mps = least * (greatest / least) ** draw.random()
        self._position_m[device] = ends_m[0] + (ends_m[1] - ends_m[0]) * draw.random()
        self._depart(device, ends_m[1], speed_mps, draw)

    def _generator(self, device: int) -> Generator:
        return generator(self._seed, Stream.MOBILITY, device, int(self._leg[device]))


def pause_probability(config: RandomWaypointConfig, area_m: tuple[float, float]) -> float:
    """Return the share of time a device pauses: mean pause over mean pause and travel.

    Speed and length of a leg are independent, so its mean duration is mean length times mean
    inverse speed, ``ln(v1/v0) / (v1 - v0)``.
    """
    least, greatest = config.speed_mps
    spread = greatest - least
    inverse_speed = math.log(greatest / least) / spread if spread > 0 else 1 / least
    travel_s = mean_leg_m(area_m) * inverse_speed
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
