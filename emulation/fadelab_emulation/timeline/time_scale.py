"""Running faster or slower than real time: durations and rates scaled together."""

import math
from dataclasses import dataclass, replace

from fadelab_emulation.link_state import Lane, LinkTick


@dataclass(frozen=True, slots=True)
class Timescale:
    """How many emulated seconds pass in a second of the wall clock.

    With a factor of 10 a run of 600 emulated seconds takes a minute: windows, delays and jitters
    last a tenth of their length, rates are ten times as high, and every packet, queue and loss is
    where it would have been. What processes compute takes as long as ever.

    A factor below 1 lowers rates, perhaps below the least that a shaper can be set to
    (:data:`fadelab_emulation.rate.base.MIN_RATE_BPS`).

    Raises:
        ValueError: the factor is not a number above 0.

    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"a time_scale must be above 0, not {self.factor:g}")

    def wall_s(self, emulated_s: float) -> float:
        """Return how long a span of emulated time takes."""
        return emulated_s / self.factor

    def emulated_s(self, wall_s: float) -> float:
        """Return how much emulated time passes in a span of the wall clock."""
        return wall_s * self.factor

    def scaled(self, tick: LinkTick) -> LinkTick:
        """Return what the links have to do on the wall clock for ``tick`` to hold.

        Rates are multiplied, delays and jitters divided by the factor. Losses, places, the tick's
        own time and the predicted contact, which devices reckon in emulated seconds, stay.
        """
        if self.factor == 1:
            return tick
        factor = self.factor
        return replace(
            tick,
            up=tuple(Lane(lane.rate_bps * factor, lane.loss) for lane in tick.up),
            down=tuple(Lane(lane.rate_bps * factor, lane.loss) for lane in tick.down),
            delay_up_s=tick.delay_up_s / factor,
            delay_down_s=tick.delay_down_s / factor,
            jitter_up_s=tick.jitter_up_s / factor,
            jitter_down_s=tick.jitter_down_s / factor,
            ergodic_up_bps=tick.ergodic_up_bps * factor,
            ergodic_down_bps=tick.ergodic_down_bps * factor,
        )


REAL_TIME = Timescale()
"""Emulated seconds are seconds of the wall clock."""
