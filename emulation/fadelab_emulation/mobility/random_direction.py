"""Random direction: a uniform heading for a random time, then another; borders reflect.

With reflection, places are uniform over the area and headings uniform over the circle at every
instant (P. Nain, D. Towsley, B. Liu and Z. Liu, "Properties of random direction models", IEEE
INFOCOM 2005). The model starts in this law.
"""

import math
from typing import Literal, Self

import numpy as np
from numpy.random import Generator
from pydantic import Field, model_validator

from fadelab_emulation.link_state import BoolArray
from fadelab_emulation.mobility.base import MobilityConfig, Motion
from fadelab_emulation.mobility.legs import Legs
from fadelab_emulation.mobility.mirror import fold
from fadelab_emulation.mobility.ranges import (
    DurationRange,
    SpeedRangeFromZero,
    draw_between,
    draw_rest_s,
)
from fadelab_emulation.scene import Scene


class RandomDirectionConfig(MobilityConfig):
    """Devices that take a new heading now and then and bounce off the borders."""

    kind: Literal["random_direction"] = "random_direction"
    speed_mps: SpeedRangeFromZero = Field(
        description="Least and greatest speed; uniform, drawn for each leg."
    )
    mean_leg_s: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Mean duration of a leg; exponential. Give either this or leg_s.",
    )
    leg_s: DurationRange | None = Field(
        default=None,
        description="Least and greatest duration of a leg; uniform. Give either this or "
        "mean_leg_s.",
    )

    @model_validator(mode="after")
    def _one_law_of_legs(self) -> Self:
        if (self.mean_leg_s is None) == (self.leg_s is None):
            given = "neither is" if self.leg_s is None else "both are"
            raise ValueError(f"give either mean_leg_s or leg_s; {given} given")
        return self

    def build(self, scene: Scene) -> "RandomDirection":
        """Return devices drawn from the stationary law."""
        return RandomDirection(self, scene)


class RandomDirection(Legs):
    """Devices on legs of uniform heading; inside, they move on a plane that is folded back."""

    def __init__(self, config: RandomDirectionConfig, scene: Scene) -> None:
        super().__init__(scene)
        self._config = config
        for device in range(scene.devices):
            draw = self._draw(device)
            self._position_m[device] = draw.random(2) * self._area_m
            self._head(device, draw)
            self._left_s[device] = self._first_leg_s(draw)

    def _motion(self, present: BoolArray | None = None) -> Motion:
        # Two sides on, the plane repeats: places stay small, and so does their rounding.
        np.mod(self._position_m, 2 * self._area_m, out=self._position_m)
        position_m, velocity_mps = fold(self._position_m, self._velocity_mps, self._area_m)
        return Motion(position_m, velocity_mps, self._travelled_m.copy(), present)

    def _turn(self, device: int) -> None:
        draw = self._draw_next(device)
        self._head(device, draw)
        self._left_s[device] = self._leg_s(draw)

    def _head(self, device: int, draw: Generator) -> None:
        speed_mps = draw_between(self._config.speed_mps, draw)
        heading = 2 * math.pi * draw.random()
        self._velocity_mps[device] = speed_mps * math.cos(heading), speed_mps * math.sin(heading)

    def _leg_s(self, draw: Generator) -> float:
        if self._config.leg_s is not None:
            return draw_between(self._config.leg_s, draw)
        assert self._config.mean_leg_s is not None
        return self._config.mean_leg_s * draw.standard_exponential()

    def _first_leg_s(self, draw: Generator) -> float:
        # What is left of an exponential duration has the law of the whole.
        if self._config.leg_s is not None:
            return draw_rest_s(self._config.leg_s, draw)
        return self._leg_s(draw)
