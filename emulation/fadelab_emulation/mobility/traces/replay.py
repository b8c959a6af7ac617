"""Devices that move along given tracks."""

from dataclasses import dataclass

import numpy as np

from fadelab_emulation.link_state import BoolArray, FloatArray, IntArray
from fadelab_emulation.mobility.base import Motion

# Times add up with rounding errors; a device is not absent for a tick because of one.
_GRACE_S = 1e-6
_SHORTEST_S = 1e-9


@dataclass(frozen=True, slots=True)
class Tracks:
    """Timed places of all devices, those of device 0 first, each device's in order of time."""

    start_s: float
    """What the trace's own clock shows at the start."""
    t_s: FloatArray
    """Seconds since the start, shape ``(samples,)``; one per device may be before it."""
    position_m: FloatArray
    """Shape ``(samples, 2)``."""
    goes_on: BoolArray
    """Whether a straight way leads to the next sample, shape ``(samples,)``; if not, the device is
    absent from here until then."""
    first: IntArray
    """Index of each device's first sample, shape ``(devices,)``."""
    last: IntArray
    """Index of each device's last sample, shape ``(devices,)``."""
    end_s: float
    """When the whole trace ends, whichever vehicles are used."""


@dataclass(frozen=True, slots=True)
class _Instant:
    position_m: FloatArray
    velocity_mps: FloatArray
    odometer_m: FloatArray
    present: BoolArray


class Replay:
    """Linear motion from sample to sample; absent where the tracks have gaps.

    Jumps (over a gap, or back to the beginning of a loop) count as travelled, so that whoever
    comes back elsewhere has a channel that knows nothing of the old place.
    """

    def __init__(
        self, tracks: Tracks, area_m: FloatArray, *, loop: bool = False, stays: bool = False
    ) -> None:
        """Begin at time 0 of the tracks.

        Args:
            tracks: where devices are when; inside the area.
            area_m: width and height, shape ``(2,)``.
            loop: begin again when the tracks end.
            stays: devices stand at the last place of their track instead of being absent.

        """
        self._tracks = tracks
        self._area_m = area_m
        self._loop = loop
        self._stays = stays
        step_m = np.diff(tracks.position_m, axis=0, append=tracks.position_m[-1:])
        length_m = np.hypot(step_m[:, 0], step_m[:, 1])
        self._odometer_m = np.cumsum(length_m) - length_m
        way_s = np.maximum(np.diff(tracks.t_s, append=0.0), _SHORTEST_S)
        self._velocity_mps = np.where(tracks.goes_on[:, None], step_m / way_s[:, None], 0.0)
        self._speed_mps = np.hypot(self._velocity_mps[:, 0], self._velocity_mps[:, 1])
        self._clock_s = 0.0
        self._start = self._at(0.0)
        end = self._at(tracks.end_s)
        back_m = self._start.position_m - end.position_m
        self._lap_m = end.odometer_m - self._start.odometer_m
        self._lap_m += np.hypot(back_m[:, 0], back_m[:, 1])
        self._odometer_now_m = self._start.odometer_m

    def advance(self, duration_s: float) -> Motion:
        """Move on along the tracks by ``duration_s``."""
        self._clock_s += duration_s
        laps, now_s = 0.0, self._clock_s
        if self._loop:
            laps, now_s = divmod(self._clock_s, self._tracks.end_s)
        now = self._at(now_s)
        odometer_m = now.odometer_m + laps * self._lap_m
        travelled_m = odometer_m - self._odometer_now_m
        self._odometer_now_m = odometer_m
        present = None if self._stays else now.present
        return Motion(now.position_m, now.velocity_mps, travelled_m, present)

    def _at(self, now_s: float) -> _Instant:
        tracks = self._tracks
        now_s += _GRACE_S
        sample = self._latest(now_s)
        since_s = np.maximum(now_s - _GRACE_S - tracks.t_s[sample], 0.0)
        velocity_mps = self._velocity_mps[sample]
        velocity_mps[now_s < tracks.t_s[sample]] = 0.0
        position_m = tracks.position_m[sample] + velocity_mps * since_s[:, None]
        return _Instant(
            # Rounding may carry a device past an edge by one unit in the last place.
            position_m=np.clip(position_m, 0.0, self._area_m),
            velocity_mps=velocity_mps,
            odometer_m=self._odometer_m[sample] + self._speed_mps[sample] * since_s,
            present=(now_s >= tracks.t_s[sample])
            & (tracks.goes_on[sample] | (now_s <= tracks.t_s[sample] + 2 * _GRACE_S)),
        )

    def _latest(self, now_s: float) -> IntArray:
        """Return each device's latest sample, or its first one to come, by bisection."""
        low, high = self._tracks.first, self._tracks.last + 1
        while True:
            middle = (low + high) // 2
            if np.array_equal(middle, low):
                return low
            later = self._tracks.t_s[middle] > now_s
            low, high = np.where(later, low, middle), np.where(later, middle, high)
