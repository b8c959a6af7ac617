"""What links did, tick by tick: the counterpart of the recorded timeline, in one file.

Format: one line of JSON (format, version), then records, little-endian. A record tells of one
reading of the shapers, made right after a tick was put in force: tick number (uint32), number of
links read (uint32), monotonic second (float64), then one row of :data:`ROW` for each link. Counts
run from the making of the links; what happened between two readings is their difference.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fadelab_emulation.backends.base import LinkSample

_FORMAT = "fadelab-achieved"
_VERSION = 1
_LONGEST_HEADER = 4096
_HEAD = struct.Struct("<IId")
ACHIEVED_HEADER = json.dumps({"format": _FORMAT, "version": _VERSION}).encode() + b"\n"
"""How every file begins."""

_COUNTS = ("sent_bytes", "backlog_bytes", "through_packets", "arrived_packets", "lost_packets")
ROW = np.dtype(
    [("device", "<u4")] + [(f"{d}_{count}", "<u8") for d in ("up", "down") for count in _COUNTS]
)
"""One link's counts; named as in :class:`fadelab_emulation.backends.base.DirectionSample`."""

Rows = NDArray[np.void]


def encode_sample(index: int, mono_s: float, sample: LinkSample) -> bytes:
    """Return the record of one reading."""
    rows = np.zeros(len(sample.devices), dtype=ROW)
    rows["device"] = sample.devices
    for direction, counts in (("up", sample.up), ("down", sample.down)):
        for name in _COUNTS:
            rows[f"{direction}_{name}"] = getattr(counts, name)
    return encode_rows(index, mono_s, rows)


def encode_rows(index: int, mono_s: float, rows: Rows) -> bytes:
    """Return the record of one reading whose counts are rows already."""
    return _HEAD.pack(index, len(rows), mono_s) + rows.tobytes()


class AchievedWriter:
    """Writes a new file; FileExistsError where there is one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._file.write(ACHIEVED_HEADER)
        self._file.flush()

    def append(self, record: bytes) -> None:
        """Append what :func:`encode_sample` returned."""
        self._file.write(record)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Achieved:
    """Readings in order of time; all arrays have shape ``(rows,)``."""

    tick: NDArray[np.int64]
    """The tick in force since just before the reading."""
    mono_s: NDArray[np.float64]
    """Monotonic second of the reading."""
    rows: Rows
    """The counts, dtype :data:`ROW`."""

    def of_device(self, device: int) -> "Achieved":
        """Return the readings of one link."""
        chosen = self.rows["device"] == device
        return Achieved(self.tick[chosen], self.mono_s[chosen], self.rows[chosen])


def read_achieved(path: Path) -> Achieved:
    """Return all readings of a file; an unfinished record at its end is left out.

    Raises:
        ValueError: the file is not of this format.

    """
    with path.open("rb") as file:
        _check_header(path, file.readline(_LONGEST_HEADER))
        body = file.read()
    ticks, times = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    parts: list[Rows] = [np.zeros(0, dtype=ROW)]
    at = 0
    while at + _HEAD.size <= len(body):
        index, count, mono_s = _HEAD.unpack_from(body, at)
        at += _HEAD.size
        if at + count * ROW.itemsize > len(body):
            break
        parts.append(np.frombuffer(body, dtype=ROW, count=count, offset=at))
        ticks.append(np.full(count, index))
        times.append(np.full(count, mono_s))
        at += count * ROW.itemsize
    return Achieved(np.concatenate(ticks), np.concatenate(times), np.concatenate(parts))


def _check_header(path: Path, line: bytes) -> None:
    try:
        header = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        header = None
    if header != {"format": _FORMAT, "version": _VERSION}:
        raise ValueError(f"{path} is no record of achieved link states that this version can read")
