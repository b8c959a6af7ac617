"""The recorded timeline of link states: what the radio world said, tick by tick, in one file.

Format: one line of JSON (format, version, devices, tick_s, seed), then one record of fixed size
per tick, little-endian: the tick number (uint32), the columns of :data:`COLUMNS` (float32, one
value per device each), and the open flags (one bit per device, device 0 in the lowest bit of the
first byte, padded to whole bytes). Nothing in it depends on when or how long a run was, so of two
runs with the same seed and configuration the shorter one's file is a prefix of the other's.
"""

import json
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from fadelab_emulation.link_state import BoolArray, FloatArray, LinkTick
from fadelab_proto.config import StrictModel

COLUMNS = (
    "x_m",
    "y_m",
    "distance_m",
    "snr_up_db",
    "rate_up_bps",
    "rate_down_bps",
    "loss_up",
    "loss_down",
    "predicted_contact_s",
)
"""The float32 columns of a record, named as in :class:`LinkTick`."""

_FORMAT = "fadelab-schedule"
_VERSION = 1
_LONGEST_HEADER = 4096
Float32Array = NDArray[np.float32]


class _Header(StrictModel):
    format: str = Field(pattern=f"^{_FORMAT}$")
    version: int = Field(ge=_VERSION, le=_VERSION)
    devices: int = Field(ge=1, le=1_000_000)
    tick_s: float = Field(gt=0)
    seed: int = Field(ge=0)


def _record_dtype(devices: int) -> np.dtype[np.void]:
    columns = [(name, "<f4", (devices,)) for name in COLUMNS]
    flags = ("is_open", "u1", ((devices + 7) // 8,))
    return np.dtype([("index", "<u4"), *columns, flags])


class ScheduleWriter:
    """Writes a new schedule file, one record per tick; a killed writer loses at most one.

    Raises FileExistsError where the file exists: a run never overwrites another's timeline.
    """

    def __init__(self, path: Path, devices: int, tick_s: float, seed: int) -> None:
        header = _Header(
            format=_FORMAT, version=_VERSION, devices=devices, tick_s=tick_s, seed=seed
        )
        self._record = np.zeros((), dtype=_record_dtype(devices))
        self._devices = devices
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
        if len(tick.is_open) != self._devices:
            raise ValueError(
                f"the schedule holds ticks of {self._devices} devices, not of {len(tick.is_open)}"
            )
        self._record["index"] = tick.index
        for name in COLUMNS:
            self._record[name] = getattr(tick, name)
        self._record["is_open"] = np.packbits(tick.is_open, bitorder="little")
        self._ticks += 1
        return self._record.tobytes()

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
    """A schedule file's columns as arrays of shape ``(ticks, devices)``.

    An unfinished record at the end (killed writer) is left out.

    Raises:
        ValueError: the file is no schedule, or a record is not the one its place asks for.

    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            header = _parse_header(path, file.readline(_LONGEST_HEADER))
            body = file.read()
        self.devices = header.devices
        self.tick_s = header.tick_s
        self.seed = header.seed
        dtype = _record_dtype(header.devices)
        self.ticks = len(body) // dtype.itemsize
        self._records = np.frombuffer(body, dtype=dtype, count=self.ticks)
        misplaced = np.flatnonzero(self._records["index"] != np.arange(self.ticks))
        if misplaced.size:
            place = int(misplaced[0])
            raise ValueError(
                f"{path} is damaged: tick {self._records['index'][place]} stands where "
                f"tick {place} belongs"
            )

    def column(self, name: str) -> Float32Array:
        """Return one of :data:`COLUMNS`; KeyError for any other name."""
        if name not in COLUMNS:
            raise KeyError(f"a schedule has no column {name!r}; it has {', '.join(COLUMNS)}")
        values: Float32Array = self._records[name]
        return values

    @property
    def t_s(self) -> FloatArray:
        """Emulated seconds at which each tick begins, shape ``(ticks,)``."""
        return np.arange(self.ticks, dtype=np.float64) * self.tick_s

    @property
    def is_open(self) -> BoolArray:
        """Whether each link is open, shape ``(ticks, devices)``."""
        bits = np.unpackbits(
            self._records["is_open"], axis=1, count=self.devices, bitorder="little"
        )
        return bits.astype(np.bool_)


def _parse_header(path: Path, line: bytes) -> _Header:
    if not line.endswith(b"\n"):
        raise ValueError(f"{path} is no link schedule: its header line is missing or unfinished")
    try:
        return _Header.model_validate(json.loads(line))
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
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
