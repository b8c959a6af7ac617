"""The recorded timeline of link states: what was asked of the links, tick by tick, in one file.

Format: one line of JSON (format, version, devices, the lanes' class names, tick_s, seed), then one
record per tick, see :mod:`fadelab_emulation.timeline.record`. Nothing in it depends on when or how
long a run was, so of two runs with the same seed and configuration the shorter one's file is a
prefix of the other's.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import BoolArray, FloatArray, LinkTick, PacketLoss
from fadelab_emulation.timeline.record import (
    PLAIN_COLUMNS,
    Float32Array,
    Layout,
    RecordEncoder,
    RecordIndex,
)
from fadelab_proto.config import StrictModel

DEFAULT_CLASS = "default"
"""What the class of all packets that have no other is called in a schedule's header."""
COLUMNS = (*PLAIN_COLUMNS, "rate_up_bps", "rate_down_bps", "loss_up", "loss_down")
"""What :meth:`ScheduleReader.column` knows, named as in :class:`LinkTick`."""

_FORMAT = "fadelab-schedule"
_VERSION = 2
_LONGEST_HEADER = 4096
_MOST_VALUES = 2**28
_MOST_DEVICES = 1_000_000


class _Header(StrictModel):
    format: str = Field(pattern=f"^{_FORMAT}$")
    version: int = Field(ge=_VERSION, le=_VERSION)
    devices: int = Field(ge=1, le=_MOST_DEVICES)
    lanes: list[Annotated[str, Field(min_length=1, max_length=32)]] = Field(
        min_length=1, max_length=8
    )
    tick_s: float = Field(gt=0)
    seed: int = Field(ge=0)


class ScheduleWriter:
    """Writes a new schedule file, one record per tick; a killed writer loses at most one.

    Args:
        path: the file to be made.
        devices: number of devices.
        tick_s: length of a tick.
        seed: the experiment's seed.
        lanes: names of the packet classes, the default one first.

    Raises:
        FileExistsError: the file exists; a run never overwrites another's timeline.

    """

    def __init__(
        self,
        path: Path,
        devices: int,
        tick_s: float,
        seed: int,
        lanes: Sequence[str] = (DEFAULT_CLASS,),
    ) -> None:
        header = _Header(
            format=_FORMAT,
            version=_VERSION,
            devices=devices,
            lanes=list(lanes),
            tick_s=tick_s,
            seed=seed,
        )
        self._encoder = RecordEncoder(Layout(devices, len(lanes)))
        self._devices = devices
        self._lanes = len(lanes)
        self._ticks = 0
        self._file = path.open("xb")
        self._file.write(header.model_dump_json().encode() + b"\n")
        self._file.flush()

    def write(self, tick: LinkTick) -> None:
        """Append one tick; ValueError unless it is the next one and of the right size."""
        self.append(self.encode(tick))

    def encode(self, tick: LinkTick) -> bytes:
        """Return the next tick's record; ValueError unless it is the next and of the right size."""
        if tick.index != self._ticks:
            raise ValueError(f"tick {self._ticks} is due in the schedule, not tick {tick.index}")
        if tick.devices != self._devices:
            raise ValueError(
                f"the schedule holds ticks of {self._devices} devices, not of {tick.devices}"
            )
        for lanes in (tick.up, tick.down):
            if len(lanes) != self._lanes:
                raise ValueError(
                    f"the schedule holds ticks of {self._lanes} packet classes, not of {len(lanes)}"
                )
        record = self._encoder.encode(tick)
        self._ticks += 1
        return record

    def append(self, record: bytes) -> None:
        """Append a record that :meth:`encode` returned; keep their order."""
        self._file.write(record)
        self._file.flush()

    def close(self) -> None:
        """Close the file; nothing may be written afterwards."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ScheduleReader:
    """A schedule file, by tick or as columns of shape ``(ticks, devices)``.

    An unfinished record at the end (killed writer) is left out. Columns are unfolded when they are
    asked for: a small file of links that do not change may hold very many ticks.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no schedule, or a record is damaged.

    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            header = _parse_header(path, file.readline(_LONGEST_HEADER))
            body = file.read()
        self.path = path
        self.devices = header.devices
        self.lanes = tuple(header.lanes)
        self.tick_s = header.tick_s
        self.seed = header.seed
        self._layout = Layout(header.devices, len(header.lanes))
        try:
            self._index = RecordIndex(body, self._layout)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    @property
    def ticks(self) -> int:
        """Number of ticks."""
        return self._index.ticks

    @property
    def t_s(self) -> FloatArray:
        """Emulated seconds at which each tick begins, shape ``(ticks,)``."""
        return np.arange(self.ticks, dtype=np.float64) * self.tick_s

    @property
    def is_open(self) -> BoolArray:
        """Whether each link is open, shape ``(ticks, devices)``."""
        flags = np.zeros(self._shape(), dtype=np.bool_)
        for start, end, values in self._index.flag_spans():
            flags[start:end] = values
        return flags

    def column(self, name: str) -> Float32Array:
        """Return one of :data:`COLUMNS`; KeyError for any other name.

        Rates are those of all lanes together, losses the default class's mean.
        """
        if name not in COLUMNS:
            raise KeyError(f"a schedule has no column {name!r}; it has {', '.join(COLUMNS)}")
        if name in PLAIN_COLUMNS:
            return self._unfold(PLAIN_COLUMNS.index(name))
        uplink = "_up" in name
        if name.startswith("loss"):
            return self.lane_loss(0, uplink=uplink).mean.astype(np.float32)
        total_bps = np.zeros(self._shape())
        for lane in range(len(self.lanes)):
            total_bps += self.lane_rate_bps(lane, uplink=uplink)
        return total_bps.astype(np.float32)

    def lane_rate_bps(self, lane: int, *, uplink: bool) -> Float32Array:
        """Return the rate of one packet class, shape ``(ticks, devices)``."""
        return self._unfold(self._layout.lane_row(lane, uplink=uplink))

    def lane_loss(self, lane: int, *, uplink: bool) -> PacketLoss:
        """Return the loss of one packet class, arrays of shape ``(ticks, devices)``."""
        row = self._layout.lane_row(lane, uplink=uplink)
        return PacketLoss(*(self._unfold(row + place).astype(np.float64) for place in range(1, 5)))

    def tick(self, index: int, devices: int | None = None) -> LinkTick:
        """Return one tick of all devices, or of the first ones; IndexError where there is none."""
        if not 0 <= index < self.ticks:
            raise IndexError(f"{self.path} has {self.ticks} ticks and no tick {index}")
        return self._index.tick(index, self.tick_s, devices or self.devices)

    def column_spans(self) -> Iterator[tuple[str, int, Float32Array]]:
        """Yield every recorded change of a column: its name, its tick, and the new values.

        Names are those of :class:`fadelab_emulation.timeline.record.Layout`, without the site.
        """
        for row, name in enumerate(self._layout.names):
            if row != self._layout.site_row:
                for start, _, values in self._index.spans(row):
                    yield name, start, values

    def _unfold(self, row: int) -> Float32Array:
        column = np.zeros(self._shape(), dtype=np.float32)
        for start, end, values in self._index.spans(row):
            column[start:end] = values
        return column

    def _shape(self) -> tuple[int, int]:
        if self.ticks * self.devices > _MOST_VALUES:
            raise ValueError(
                f"{self.path} holds {self.ticks} ticks of {self.devices} devices, more than can "
                "be unfolded at once"
            )
        return self.ticks, self.devices


def _parse_header(path: Path, line: bytes) -> _Header:
    if not line.endswith(b"\n"):
        raise ValueError(f"{path} is no link schedule: its header line is missing or unfinished")
    try:
        return _Header.model_validate(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no link schedule that this version can read") from error


def contact_windows(reader: ScheduleReader) -> list[list[tuple[float, float]]]:
    """Return each device's contact windows as ``(start_s, end_s)`` in emulated seconds.

    A window starts with the first tick that is open and ends where the last such tick ends; one
    that is open at the end of the recording ends there.
    """
    closed = np.zeros((1, reader.devices), dtype=np.int8)
    changes = np.diff(np.concatenate([closed, reader.is_open.astype(np.int8), closed]), axis=0)
    windows = []
    for device in range(reader.devices):
        starts = np.flatnonzero(changes[:, device] == 1) * reader.tick_s
        ends = np.flatnonzero(changes[:, device] == -1) * reader.tick_s
        windows.append(list(zip(starts.tolist(), ends.tolist(), strict=True)))
    return windows
