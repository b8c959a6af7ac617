"""What links were programmed to do, unfolded from the recorded schedule."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab.results.loss import burstiness
from fadelab.results.record import RunRecord
from fadelab_emulation.schedule import ScheduleReader

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class ProgrammedDirection:
    """One direction of all links; arrays have shape ``(ticks, devices)`` unless noted."""

    open_bps: NDArray[np.float64]
    """Rate of all packet classes together in emulated time, 0 while a link is closed."""
    slowest_wall_bps: FloatArray
    """Rate on the wall clock of the packet class that has the least, open or closed."""
    burstiness: FloatArray
    """How much bursts increase the variance of losses, shape ``(devices,)``."""


@dataclass(frozen=True, slots=True)
class Programmed:
    """The whole timeline of a run; without a recorded schedule it has no ticks."""

    tick_s: float
    tick_wall_s: float
    is_open: NDArray[np.bool_]
    """Shape ``(ticks, devices)``."""
    up: ProgrammedDirection
    down: ProgrammedDirection

    @classmethod
    def of(cls, record: RunRecord, devices: int) -> "Programmed":
        """Unfold a run's schedule."""
        schedule = record.schedule
        if schedule is None:
            none = np.zeros((0, devices))
            nothing = ProgrammedDirection(none, none, np.ones(devices))
            return cls(1.0, 1.0, none > 0, nothing, nothing)
        time_scale = record.experiment.radio.time_scale
        is_open, factors = schedule.is_open, burstiness(schedule)
        up, down = (
            _direction(schedule, way, is_open, time_scale, factors[way]) for way in ("up", "down")
        )
        return cls(schedule.tick_s, schedule.tick_s / time_scale, is_open, up, down)

    def direction(self, name: str) -> ProgrammedDirection:
        """Return the one that is called ``up`` or ``down``."""
        return self.up if name == "up" else self.down


def _direction(
    schedule: ScheduleReader,
    name: str,
    is_open: NDArray[np.bool_],
    time_scale: float,
    factor: FloatArray,
) -> ProgrammedDirection:
    lanes = [
        schedule.lane_rate_bps(lane, uplink=name == "up") for lane in range(len(schedule.lanes))
    ]
    return ProgrammedDirection(
        open_bps=schedule.column(f"rate_{name}_bps").astype(np.float64) * is_open,
        slowest_wall_bps=np.minimum.reduce(lanes) * time_scale,
        burstiness=factor,
    )
