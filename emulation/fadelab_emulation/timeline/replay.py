"""A recorded schedule carried out again, bit for bit, instead of the radio models."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import LinkTick
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.timeline.link_source import LinkTerms, refuse_power
from fadelab_proto.config import StrictModel

_LIMITS: dict[str, tuple[float, float]] = {
    "rate_bps": (0.0, 1e12),
    "in_good": (0.0, 1.0),
    "in_bad": (0.0, 1.0),
    "to_bad": (0.0, 1.0),
    "to_good": (0.0, 1.0),
    "delay_up_s": (0.0, 3600.0),
    "delay_down_s": (0.0, 3600.0),
    "jitter_up_s": (0.0, 3600.0),
    "jitter_down_s": (0.0, 3600.0),
    "predicted_contact_s": (0.0, 1e9),
}
"""Columns that links and devices act on, and what their values may be."""


class AtEnd(StrEnum):
    """What a replay does once its recording is over."""

    LOOP = "loop"
    """It begins again."""
    CLOSE = "close"
    """All links close."""
    HOLD = "hold"
    """All links stay as they were last."""


class ReplayConfig(StrictModel):
    """A recorded schedule instead of the radio models."""

    kind: Literal["replay"] = "replay"
    path: Path = Field(description="A run's links.schedule.")
    at_end: AtEnd = Field(
        default=AtEnd.CLOSE,
        description="Once the recording is over: loop, close all links, or hold their last state.",
    )

    def build(self, terms: LinkTerms) -> "Replay":
        """Return the replay for the first devices of the recording.

        Raises:
            OSError: the recording cannot be read.
            ValueError: it is damaged, absurd, or does not fit the experiment.

        """
        reader = ScheduleReader(self.path)
        if terms.devices > reader.devices:
            raise ValueError(
                f"{self.path} was recorded with {reader.devices} devices and cannot be replayed "
                f"for {terms.devices}"
            )
        if terms.tick_s != reader.tick_s:
            raise ValueError(
                f"{self.path} was recorded with ticks of {reader.tick_s:g} s and cannot be "
                f"replayed in ticks of {terms.tick_s:g} s"
            )
        asked = tuple(packet_class.name for packet_class in terms.classes)
        if asked != reader.lanes[1:]:
            raise ValueError(
                f"{self.path} was recorded with the packet classes {_listed(reader.lanes[1:])} "
                f"and cannot be replayed with {_listed(asked)}"
            )
        return Replay(reader, terms.devices, self.at_end)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "(none besides the default one)"


class Replay:
    """Yields a recording's ticks with the very numbers that were recorded.

    Args:
        reader: the recording.
        devices: how many of its devices to replay, the first ones.
        at_end: what to do after its last tick.

    Raises:
        ValueError: the recording holds no tick, or values that no link can have.

    """

    def __init__(self, reader: ScheduleReader, devices: int, at_end: AtEnd) -> None:
        if reader.ticks == 0:
            raise ValueError(f"{reader.path} holds no tick to replay")
        _check_values(reader)
        self._reader = reader
        self._devices = devices
        self._at_end = at_end
        self._index = 0

    def step(self) -> LinkTick:
        """Return the next tick, numbered on from 0 however often the recording is repeated."""
        index, ticks = self._index, self._reader.ticks
        self._index += 1
        place = index % ticks if self._at_end is AtEnd.LOOP else min(index, ticks - 1)
        tick = self._reader.tick(place, self._devices)
        if place == index:
            return tick
        tick = replace(tick, index=index, t_s=index * self._reader.tick_s)
        if self._at_end is AtEnd.CLOSE:
            return replace(
                tick,
                is_open=np.zeros(self._devices, dtype=np.bool_),
                predicted_contact_s=np.zeros(self._devices),
            )
        return tick

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Raise ValueError: what was recorded cannot be changed by a power."""
        refuse_power(device, power_w, "a replayed timeline")


def _check_values(reader: ScheduleReader) -> None:
    for name, tick, values in reader.column_spans():
        limits = _LIMITS.get(name.rpartition(".")[2])
        if limits is None:
            continue
        low, high = limits
        wrong = np.flatnonzero(~((values >= low) & (values <= high)))
        if wrong.size:
            device = int(wrong[0])
            raise ValueError(
                f"{reader.path} cannot be replayed: the {name} of device {device} in tick {tick} "
                f"is {values[device]:g}, it must lie between {low:g} and {high:g}"
            )
