"""One tick of a recorded timeline as bytes: only the columns that differ from the tick before.

A record is a head of four little-endian uint32 and a content. The head holds the tick number, the
length of the content, the CRC-32C of the content, and the CRC-32C of the three numbers before it:
a record whose end is missing is so told from one whose length was altered. The content is a mask
with one bit per column (column 0 in the lowest bit of the first byte), then the columns whose bit
is set, in their order. All columns hold four bytes per device (float32; the site int32) but the
last, the open flags, one bit per device (device 0 in the lowest bit of the first byte). Before
tick 0 every column is zero.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from fadelab_emulation.link_state import BoolArray, Lane, LinkTick, PacketLoss

Float32Array = NDArray[np.float32]

PLAIN_COLUMNS = (
    "x_m",
    "y_m",
    "distance_m",
    "snr_up_db",
    "delay_up_s",
    "delay_down_s",
    "jitter_up_s",
    "jitter_down_s",
    "ergodic_up_bps",
    "ergodic_down_bps",
    "predicted_contact_s",
)
"""Columns that are attributes of a :class:`LinkTick`; the site and the lanes follow them."""
LANE_COLUMNS = ("rate_bps", "in_good", "in_bad", "to_bad", "to_good")
_HEAD = struct.Struct("<IIII")
_CHECKED = struct.Struct("<III")
_VALUE = np.dtype("<f4")
_SITE = np.dtype("<i4")
_BITS = np.dtype("<u4")


@dataclass(frozen=True)
class Layout:
    """Which columns a recording has, and how long they are."""

    devices: int
    lanes: int
    """Packet classes in each direction, the default one included."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every column of four bytes per device, such as ``x_m`` or ``up[0].rate_bps``."""
        return (
            *PLAIN_COLUMNS,
            "site",
            *(
                f"{direction}[{lane}].{name}"
                for direction in ("up", "down")
                for lane in range(self.lanes)
                for name in LANE_COLUMNS
            ),
        )

    @property
    def site_row(self) -> int:
        """The column of the serving sites."""
        return len(PLAIN_COLUMNS)

    def lane_row(self, lane: int, *, uplink: bool) -> int:
        """Return the first of a lane's :data:`LANE_COLUMNS`."""
        number = lane if uplink else self.lanes + lane
        return self.site_row + 1 + number * len(LANE_COLUMNS)

    @property
    def flag_row(self) -> int:
        """The number of the last column, the open flags."""
        return len(self.names)

    @property
    def flag_bytes(self) -> int:
        """Length of the open flags."""
        return (self.devices + 7) // 8

    @property
    def mask_bytes(self) -> int:
        """Length of the mask."""
        return self.flag_row // 8 + 1

    @property
    def longest_content(self) -> int:
        """Length of a content in which every column stands."""
        return self.mask_bytes + self.flag_row * 4 * self.devices + self.flag_bytes


class RecordEncoder:
    """Turns ticks into records, in order."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._state = np.zeros((layout.flag_row, layout.devices), dtype=_VALUE)
        self._before = np.zeros_like(self._state)
        self._flags = np.zeros(layout.flag_bytes, dtype=np.uint8)

    def encode(self, tick: LinkTick) -> bytes:
        """Return the tick's record; its devices and lanes are those of the layout."""
        state = self._state
        _fill(state, tick, self._layout)
        flags = np.packbits(tick.is_open, bitorder="little")
        changed = np.empty(self._layout.flag_row + 1, dtype=np.bool_)
        # Bit for bit: a NaN equals itself, and 0 differs from -0.
        np.any(state.view(_BITS) != self._before.view(_BITS), axis=1, out=changed[:-1])
        changed[-1] = not np.array_equal(flags, self._flags)
        content = np.packbits(changed, bitorder="little").tobytes()
        content += state[changed[:-1]].tobytes()
        if changed[-1]:
            content += flags.tobytes()
        self._state, self._before, self._flags = self._before, state, flags
        checked = _CHECKED.pack(tick.index, len(content), _crc(content))
        return checked + _crc(checked).to_bytes(4, "little") + content


def _fill(state: Float32Array, tick: LinkTick, layout: Layout) -> None:
    for row, name in enumerate(PLAIN_COLUMNS):
        state[row] = getattr(tick, name)
    state.view(_SITE)[layout.site_row] = tick.site
    row = layout.site_row + 1
    for lane in (*tick.up, *tick.down):
        loss = lane.loss
        for values in (lane.rate_bps, loss.in_good, loss.in_bad, loss.to_bad, loss.to_good):
            state[row] = values
            row += 1


class RecordIndex:
    """Where every column's values stand in a sequence of records.

    An unfinished record at the end is left out. Needs a few bytes per changed column, however many
    devices and ticks the records claim.

    Raises:
        ValueError: a record is damaged, misplaced or of a length that its mask does not give.

    """

    def __init__(self, body: bytes, layout: Layout) -> None:
        self._body = body
        self._layout = layout
        self.ticks = 0
        self._starts = [array("q") for _ in range(layout.flag_row + 1)]
        self._offsets = [array("q") for _ in range(layout.flag_row + 1)]
        position = 0
        while (end := self._take(position)) is not None:
            position = end

    def _take(self, position: int) -> int | None:
        """Index the record at ``position``; return where it ends, None if it is unfinished."""
        body = self._body
        start = position + _HEAD.size
        if start > len(body):
            return None
        index, length, content_crc, head_crc = _HEAD.unpack_from(body, position)
        if _crc(body[position : position + _CHECKED.size]) != head_crc:
            raise ValueError(f"the record of tick {self.ticks} has been altered")
        if index != self.ticks:
            raise ValueError(f"tick {index} stands where tick {self.ticks} belongs")
        if not self._layout.mask_bytes <= length <= self._layout.longest_content:
            raise ValueError(f"the record of tick {index} cannot be {length} bytes long")
        end: int = start + length
        if end > len(body):
            return None
        if _crc(body[start:end]) != content_crc:
            raise ValueError(f"the record of tick {index} has been altered")
        self._note(start, end)
        self.ticks += 1
        return end

    def _note(self, start: int, end: int) -> None:
        layout = self._layout
        offset = start + layout.mask_bytes
        mask = int.from_bytes(self._body[start:offset], "little")
        if mask >> (layout.flag_row + 1):
            raise ValueError(f"the record of tick {self.ticks} names columns that there are not")
        while mask:
            row = (mask & -mask).bit_length() - 1
            mask &= mask - 1
            self._starts[row].append(self.ticks)
            self._offsets[row].append(offset)
            offset += layout.flag_bytes if row == layout.flag_row else 4 * layout.devices
        if offset != end:
            raise ValueError(
                f"the record of tick {self.ticks} is {end - start} bytes long, its columns are "
                f"{offset - start}"
            )

    def spans(self, row: int) -> Iterator[tuple[int, int, Float32Array]]:
        """Yield first tick, end and values, shape ``(devices,)``, while a column stays the same.

        Ticks before its first change, in which it is zero, are left out.
        """
        for start, end, offset in self._places(row):
            yield start, end, self._values(row, offset)

    def flag_spans(self) -> Iterator[tuple[int, int, BoolArray]]:
        """Do as :meth:`spans` for the open flags."""
        for start, end, offset in self._places(self._layout.flag_row):
            yield start, end, self._flags(offset)

    def _places(self, row: int) -> Iterator[tuple[int, int, int]]:
        starts = self._starts[row]
        return zip(starts, [*starts[1:], self.ticks], self._offsets[row], strict=False)

    def tick(self, index: int, tick_s: float, devices: int) -> LinkTick:
        """Return one tick of the first devices, every number as it was rounded to float32."""
        layout = self._layout
        state = np.zeros((layout.flag_row, devices), dtype=_VALUE)
        for row in range(layout.flag_row):
            if (offset := self._offset(row, index)) is not None:
                state[row] = self._values(row, offset)[:devices]
        offset = self._offset(layout.flag_row, index)
        closed = np.zeros(devices, dtype=np.bool_)
        is_open = closed if offset is None else self._flags(offset)[:devices]
        return _tick(state, is_open, layout, index, tick_s)

    def _offset(self, row: int, tick: int) -> int | None:
        place = bisect_right(self._starts[row], tick)
        return self._offsets[row][place - 1] if place else None

    def _values(self, row: int, offset: int) -> Float32Array:
        dtype = _SITE if row == self._layout.site_row else _VALUE
        values = np.frombuffer(self._body, dtype, self._layout.devices, offset)
        return values.view(_VALUE)

    def _flags(self, offset: int) -> BoolArray:
        packed = np.frombuffer(self._body, np.uint8, self._layout.flag_bytes, offset)
        return np.unpackbits(packed, count=self._layout.devices, bitorder="little").astype(np.bool_)


def _tick(
    state: Float32Array, is_open: BoolArray, layout: Layout, index: int, tick_s: float
) -> LinkTick:
    site = state.view(_SITE)[layout.site_row].astype(np.int64)
    state[layout.site_row] = 0
    values = state.astype(np.float64)

    def lanes(*, uplink: bool) -> tuple[Lane, ...]:
        rows = (layout.lane_row(lane, uplink=uplink) for lane in range(layout.lanes))
        return tuple(Lane(values[row], PacketLoss(*values[row + 1 : row + 5])) for row in rows)

    plain = {name: values[row] for row, name in enumerate(PLAIN_COLUMNS)}
    return LinkTick(
        index=index,
        t_s=index * tick_s,
        site=site,
        up=lanes(uplink=True),
        down=lanes(uplink=False),
        is_open=is_open,
        **plain,
    )


def _crc(content: bytes) -> int:
    crc: int = google_crc32c.value(content)
    return crc
