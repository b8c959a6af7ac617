"""Ranges that speeds and durations are drawn from, and what time makes of them.

What is uniform from leg to leg is not uniform in time: a slow leg and a long pause fill more of
it. The functions below give both laws.
"""

import math
from typing import Annotated

from numpy.random import Generator
from pydantic import AfterValidator, Field

FASTEST_MPS = 1000.0


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"the smaller bound comes first, but {bounds[0]:g} is greater than {bounds[1]:g}"
        )
    return bounds


_Speed = Annotated[float, Field(gt=0, le=FASTEST_MPS)]
_SpeedOrNone = Annotated[float, Field(ge=0, le=FASTEST_MPS)]
_Duration = Annotated[float, Field(gt=0, le=1e6)]
_DurationOrNone = Annotated[float, Field(ge=0, le=1e6)]

SpeedRange = Annotated[tuple[_Speed, _Speed], AfterValidator(_ordered)]
"""Least and greatest speed, both above 0."""
SpeedRangeFromZero = Annotated[tuple[_SpeedOrNone, _SpeedOrNone], AfterValidator(_ordered)]
DurationRange = Annotated[tuple[_Duration, _Duration], AfterValidator(_ordered)]
"""Least and greatest duration in seconds, both above 0."""
DurationRangeFromZero = Annotated[tuple[_DurationOrNone, _DurationOrNone], AfterValidator(_ordered)]


def draw_between(bounds: tuple[float, float], draw: Generator) -> float:
    """Return a uniform value of the range."""
    least, greatest = bounds
    return least + (greatest - least) * draw.random()


def draw_speed_in_time(bounds: tuple[float, float], draw: Generator) -> float:
    """Return the speed found at a random instant, if each leg of given length draws a uniform one.

    Its density is proportional to 1/speed, for a leg lasts so much the longer (W. Navidi and
    T. Camp, "Stationary distributions for the random waypoint mobility model", IEEE Trans. Mobile
    Computing 3(1), 2004).
    """
    least, greatest = bounds
    return least * float((greatest / least) ** draw.random())


def draw_rest_s(bounds: tuple[float, float], draw: Generator) -> float:
    """Return what is left, at a random instant, of a duration that was drawn from the range.

    The duration in which an instant falls is length-biased, and the instant uniform in it.
    """
    least, greatest = bounds
    whole_s = math.sqrt(least**2 + (greatest**2 - least**2) * draw.random())
    return whole_s * draw.random()


def mean_inverse_speed(bounds: tuple[float, float]) -> float:
    """Return the mean time per metre of legs with uniform speed, ``ln(v1/v0) / (v1 - v0)``, s/m."""
    least, greatest = bounds
    spread = greatest - least
    return math.log(greatest / least) / spread if spread > 0 else 1 / least
