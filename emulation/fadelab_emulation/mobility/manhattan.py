"""Manhattan grid: vehicles on streets that cross at right angles, turning at random.

After the outdoor environment of ETSI TR 101 112 (UMTS 30.03), annex B, in the form of F. Bai,
N. Sadagopan and A. Helmy, "IMPORTANT: a framework to systematically analyze the impact of mobility
on performance of routing protocols for ad hoc networks", IEEE INFOCOM 2003: straight on with
probability 0.5, left and right with 0.25 each. Here a vehicle takes a new speed for each block, and
may wait at crossings.
"""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.random import Generator
from pydantic import Field, model_validator

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

# Headings are numbered against the clock from east, so that a turn to the left is one more.
_AHEAD = ((1, 0), (0, 1), (-1, 0), (0, -1))
_TURNS = (1, 0, -1)

_Probability = Annotated[float, Field(ge=0, le=1)]
_Crossing = tuple[int, int]


class ManhattanConfig(MobilityConfig):
    """Vehicles on a grid of streets."""

    kind: Literal["manhattan"] = "manhattan"
    block_m: float = Field(
        default=100.0,
        gt=0,
        le=1e6,
        description="Length of a block. As many whole blocks as fit stand in the area's middle; "
        "streets run between and round them.",
    )
    speed_mps: SpeedRange = Field(
        description="Least and greatest speed; uniform, drawn for each block."
    )
    turn_probabilities: tuple[_Probability, _Probability, _Probability] = Field(
        default=(0.25, 0.5, 0.25),
        description="Left, straight on and right at a crossing of four streets. At the grid's "
        "border a vehicle takes either of the other streets with equal probability.",
    )
    stop_probability: _Probability = Field(
        default=0.0, description="Probability of waiting at a crossing."
    )
    stop_s: DurationRangeFromZero = Field(
        default=(0.0, 0.0), description="Least and greatest wait; uniform."
    )

    @model_validator(mode="after")
    def _probabilities_add_up(self) -> Self:
        total = sum(self.turn_probabilities)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the turn probabilities must add up to 1, not {total:g}")
        return self

    def check_fits(self, area_m: tuple[float, float], base_station_m: tuple[float, float]) -> None:
        """Raise ValueError if not one block fits into the area."""
        del base_station_m
        if self.block_m > min(area_m):
            raise ValueError(
                f"a block of {self.block_m:g} m does not fit into the area of "
                f"{area_m[0]:g} m x {area_m[1]:g} m"
            )

    def build(self, scene: Scene) -> "Manhattan":
        """Return vehicles drawn from the stationary law."""
        return Manhattan(self, scene)


class Streets:
    """The streets of the grid: crossing ``(i, j)`` stands at ``x_m[i], y_m[j]``."""

    def __init__(self, area_m: tuple[float, float], block_m: float) -> None:
        self.x_m = _lines_m(area_m[0], block_m)
        self.y_m = _lines_m(area_m[1], block_m)

    def place_m(self, crossing: _Crossing) -> tuple[float, float]:
        """Return where a crossing stands, metres."""
        return float(self.x_m[crossing[0]]), float(self.y_m[crossing[1]])

    def next(self, crossing: _Crossing, heading: int) -> _Crossing | None:
        """Return the crossing one block on, or None where the street ends."""
        i, j = crossing[0] + _AHEAD[heading][0], crossing[1] + _AHEAD[heading][1]
        return (i, j) if 0 <= i < len(self.x_m) and 0 <= j < len(self.y_m) else None

    def draw_block(self, draw: Generator) -> tuple[_Crossing, int]:
        """Return a random block's side and a direction: the crossing behind, and the heading."""
        columns, rows = len(self.x_m), len(self.y_m)
        along_x = (columns - 1) * rows
        number = int(draw.integers(2 * (along_x + columns * (rows - 1))))
        number, backwards = divmod(number, 2)
        if number < along_x:
            i, j, heading = number % (columns - 1), number // (columns - 1), 0
        else:
            i, j, heading = (number - along_x) % columns, (number - along_x) // columns, 1
        if backwards:
            return (i + _AHEAD[heading][0], j + _AHEAD[heading][1]), heading + 2
        return (i, j), heading


def _lines_m(side_m: float, block_m: float) -> FloatArray:
    # The grace keeps 0.3 m / 0.1 m at three blocks.
    blocks = int(side_m / block_m + 1e-9)
    first_m = max(0.0, (side_m - blocks * block_m) / 2)
    lines_m: FloatArray = np.minimum(first_m + block_m * np.arange(blocks + 1), side_m)
    return lines_m


class Manhattan(Legs):
    """Vehicles that go from crossing to crossing.

    Every crossing sends out on each street as many vehicles as come in on one (turn probabilities
    add up to 1, and at the border the choice is even), so that all blocks and both directions are
    equally busy: the stationary law, from which vehicles start.
    """

    def __init__(self, config: ManhattanConfig, scene: Scene) -> None:
        super().__init__(scene)
        self._config = config
        self._streets = Streets(scene.area_m, config.block_m)
        self._crossing: list[_Crossing] = [(0, 0)] * scene.devices  # ahead, or where it waits
        self._heading = [0] * scene.devices
        self._wait_s = [0.0] * scene.devices  # at the end of the present block
        wait_s = config.stop_probability * sum(config.stop_s) / 2
        drive_s = config.block_m * mean_inverse_speed(config.speed_mps)
        waiting = wait_s / (wait_s + drive_s)
        for device in range(scene.devices):
            self._start(device, waiting)

    def _start(self, device: int, waiting: float) -> None:
        draw = self._draw(device)
        behind, heading = self._streets.draw_block(draw)
        if draw.random() < waiting:
            ahead = self._streets.next(behind, heading)
            assert ahead is not None
            self._crossing[device], self._heading[device] = ahead, heading
            self._position_m[device] = self._streets.place_m(ahead)
            self._left_s[device] = draw_rest_s(self._config.stop_s, draw)
            return
        speed_mps = draw_speed_in_time(self._config.speed_mps, draw)
        self._depart(device, behind, heading, speed_mps, draw)
        gone_s = self._left_s[device] * draw.random()
        self._position_m[device] += self._velocity_mps[device] * gone_s
        self._left_s[device] -= gone_s

    def _turn(self, device: int) -> None:
        """Arrive at a crossing and wait there, or leave it."""
        crossing = self._crossing[device]
        if self._wait_s[device] > 0:
            self._position_m[device] = self._streets.place_m(crossing)
            self._velocity_mps[device] = 0.0
            self._left_s[device], self._wait_s[device] = self._wait_s[device], 0.0
            return
        draw = self._draw_next(device)
        heading = self._choose(crossing, self._heading[device], draw)
        self._depart(device, crossing, heading, draw_between(self._config.speed_mps, draw), draw)

    def _choose(self, crossing: _Crossing, heading: int, draw: Generator) -> int:
        headings = [(heading + turn) % 4 for turn in _TURNS]
        streets = [way for way in headings if self._streets.next(crossing, way) is not None]
        chance = draw.random()
        if len(streets) < len(headings):
            return streets[int(chance * len(streets))]
        left, straight, _ = self._config.turn_probabilities
        return headings[0 if chance < left else 1 if chance < left + straight else 2]

    def _depart(
        self, device: int, behind: _Crossing, heading: int, speed_mps: float, draw: Generator
    ) -> None:
        ahead = self._streets.next(behind, heading)
        assert ahead is not None
        self._crossing[device], self._heading[device] = ahead, heading
        self._position_m[device] = self._streets.place_m(behind)
        self._velocity_mps[device] = speed_mps * np.asarray(_AHEAD[heading])
        self._left_s[device] = self._config.block_m / speed_mps
        if draw.random() < self._config.stop_probability:
            self._wait_s[device] = draw_between(self._config.stop_s, draw)
