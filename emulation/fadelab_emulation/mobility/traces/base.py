"""What all trace formats share: their settings, and collecting the tracks of the devices."""

from abc import abstractmethod
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from fadelab_emulation.mobility.base import MobilityConfig
from fadelab_emulation.mobility.ranges import FASTEST_MPS
from fadelab_emulation.mobility.traces.reading import Sighting, seconds, shown
from fadelab_emulation.mobility.traces.replay import Replay, Tracks
from fadelab_emulation.scene import Scene

_MOST_SIGHTINGS = 5_000_000
_ROUNDING = 1e-6  # of speeds that a file gives as places and times


class TraceConfig(MobilityConfig):
    """Settings of every trace format; the file itself is read and checked by :meth:`build`.

    Device 0 is the first vehicle to appear in the file, device 1 the second, and so on; with
    ``start_s``, the first to have a place at that time or later. A device is absent before its
    vehicle's first place and after its last, and so is everyone when the trace is over, unless it
    is looped. Velocities follow from the places.
    """

    path: Path = Field(description="The trace file.")
    offset_m: tuple[float, float] = Field(
        default=(0.0, 0.0), description="What is added to each x and y of the file."
    )
    start_s: float | None = Field(
        default=None,
        description="Time in the file at which the experiment begins; left out: its earliest.",
    )
    loop: bool = Field(default=False, description="Begin again at start_s when the trace is over.")

    # Whether vehicles stand at their last place when the trace is over, instead of being absent.
    stays: ClassVar[bool] = False

    @abstractmethod
    def sightings(self) -> Iterator[Sighting]:
        """Read the file, yielding each vehicle's places in order of time.

        Raises:
            ValueError: one sentence that names file, line, what was found and what is allowed.

        """

    def build(self, scene: Scene) -> Replay:
        """Read the whole file and return its vehicles' motion.

        Raises:
            ValueError: the file cannot be read, is malformed, has too few vehicles, or takes one
                out of the area.

        """
        collection = _Collection(self, scene.devices)
        for sighting in self.sightings():
            collection.add(sighting)
        tracks = collection.tracks()
        _check_moves(tracks, list(collection.found), self, scene)
        if self.loop and tracks.end_s == 0:
            raise ValueError(f"{self.path}: a trace of a single instant cannot be looped")
        return Replay(tracks, np.asarray(scene.area_m), loop=self.loop, stays=self.stays)


@dataclass(slots=True)
class _Track:
    """One vehicle's sightings, as columns."""

    t_s: "array[float]" = field(default_factory=lambda: array("d"))
    x_m: "array[float]" = field(default_factory=lambda: array("d"))
    y_m: "array[float]" = field(default_factory=lambda: array("d"))
    joined: bytearray = field(default_factory=bytearray)

    def add(self, sighting: Sighting) -> None:
        self.t_s.append(sighting.t_s)
        self.x_m.append(sighting.x_m)
        self.y_m.append(sighting.y_m)
        self.joined.append(sighting.joined)


class _Collection:
    """The tracks of the first vehicles of a file, as many as there are devices."""

    def __init__(self, config: TraceConfig, devices: int) -> None:
        self._config = config
        self._devices = devices
        self._start_s = -np.inf if config.start_s is None else config.start_s
        self._waiting: dict[str, Sighting] = {}  # the last sighting before the start
        self._kept = 0
        self._first_s, self._last_s = np.inf, -np.inf
        self.found: dict[str, _Track] = {}

    def add(self, sighting: Sighting) -> None:
        """Keep a sighting if it is one of a device, from the one before the start on."""
        self._first_s = min(self._first_s, sighting.t_s)
        self._last_s = max(self._last_s, sighting.t_s)
        if sighting.t_s < self._start_s:
            self._waiting[sighting.vehicle] = sighting
            return
        track = self.found.get(sighting.vehicle)
        if track is None:
            if len(self.found) == self._devices:
                return
            track = self.found[sighting.vehicle] = _Track()
            earlier = self._waiting.pop(sighting.vehicle, None)
            if earlier is not None:
                track.add(earlier)
        track.add(sighting)
        self._kept += 1
        if self._kept > _MOST_SIGHTINGS:
            raise ValueError(
                f"{self._config.path}: more than {_MOST_SIGHTINGS} places of the devices are not "
                "supported; give the trace a longer time step or a shorter duration"
            )

    def tracks(self) -> Tracks:
        """Return all that was kept; ValueError if that is less than a track per device."""
        path, start_s = self._config.path, self._config.start_s
        if self._last_s == -np.inf:
            raise ValueError(f"{path}: the trace is empty")
        if start_s is None:
            start_s = float(self._first_s)
        if len(self.found) < self._devices:
            since = "" if start_s <= self._first_s else f" from {seconds(start_s)} on"
            raise ValueError(
                f"{path}: the trace has {len(self.found)} vehicles{since}, but the experiment has "
                f"{self._devices} devices"
            )
        found = self.found.values()
        joined = np.concatenate([np.frombuffer(track.joined, dtype=np.bool_) for track in found])
        x_m = np.concatenate([np.asarray(track.x_m) for track in found])
        y_m = np.concatenate([np.asarray(track.y_m) for track in found])
        counts = np.array([len(track.t_s) for track in found])
        first = np.cumsum(counts) - counts
        joined[first] = False
        return Tracks(
            start_s=start_s,
            t_s=np.concatenate([np.asarray(track.t_s) for track in found]) - start_s,
            position_m=np.column_stack([x_m, y_m]) + np.asarray(self._config.offset_m),
            goes_on=np.append(joined[1:], False),
            first=first,
            last=first + counts - 1,
            end_s=float(self._last_s) - start_s,
        )


def _check_moves(tracks: Tracks, names: list[str], config: TraceConfig, scene: Scene) -> None:
    """Raise ValueError if a device leaves the area, or moves as nothing on earth does."""

    def subject(sample: int) -> str:
        device = int(np.searchsorted(tracks.first, sample, side="right")) - 1
        return f"{config.path}: vehicle {shown(names[device])} (device {device})"

    def when(sample: int) -> str:
        return seconds(tracks.t_s[sample] + tracks.start_s)

    width_m, height_m = scene.area_m
    outside = ((tracks.position_m < 0) | (tracks.position_m > scene.area_m)).any(axis=1)
    if outside.any():
        sample = int(np.argmax(outside))
        x_m, y_m = tracks.position_m[sample]
        raise ValueError(
            f"{subject(sample)} is at ({x_m:g}, {y_m:g}) at {when(sample)}, outside the area of "
            f"{width_m:g} m x {height_m:g} m; area_m and offset_m can be changed"
        )
    step_m = np.diff(tracks.position_m, axis=0)
    reach_m = FASTEST_MPS * (1 + _ROUNDING) * np.diff(tracks.t_s)
    too_far = tracks.goes_on[:-1] & (np.hypot(step_m[:, 0], step_m[:, 1]) > reach_m)
    if too_far.any():
        sample = int(np.argmax(too_far))
        raise ValueError(
            f"{subject(sample)} moves faster than {FASTEST_MPS:g} m/s from {when(sample)} to "
            f"{when(sample + 1)}"
        )
