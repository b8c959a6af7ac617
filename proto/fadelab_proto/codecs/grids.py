"""Uniform grids of levels ``low + step * q``, one for each group of consecutive coordinates.

A packet carries the grids of its coordinates as a description of the groups
(:mod:`fadelab_proto.codecs.groups`) and then, little-endian, a float32 ``low`` for each group and a
float32 ``step`` for each group.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import lcm

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs import kernels
from fadelab_proto.codecs.base import F32, F64, CodecError, Index, check_finite
from fadelab_proto.codecs.bit_planes import MAX_BITS, U8, Codes
from fadelab_proto.codecs.group_views import by_group, groups_within
from fadelab_proto.codecs.groups import Groups, read_groups, write_groups
from fadelab_proto.codecs.plain_kernels import Scales

BLOCK = 1 << 18
"""Coordinates that are worked on together: scratch stays in the cache, calls are few."""
MAX_COORDINATES = 1 << 20
"""Most coordinates of one packet: four mebibytes when decoded."""

_LARGEST = float(np.finfo(np.float32).max)
_GROUPS_HEAD_BYTES = 12


@dataclass(frozen=True, slots=True)
class Grids:
    """The grid of each group; all arrays have one entry per group."""

    starts: Index
    """First coordinate of each group, beginning with 0."""
    lows: F32
    steps: F32

    def within(self, first: int, count: int) -> "Grids":
        """Return the grids of ``count`` coordinates from ``first`` on, counted from there."""
        groups = groups_within(self.starts, first, first + count)
        starts = np.maximum(self.starts[groups] - first, 0)
        return Grids(starts, self.lows[groups], self.steps[groups])

    def write(self, *, lows: bool = True) -> bytes:
        """Return the grids as a packet carries them, without ``lows`` if these are not needed."""
        values = [self.lows, self.steps] if lows else [self.steps]
        return write_groups(self.starts) + b"".join(v.astype("<f4").tobytes() for v in values)

    @staticmethod
    def read(
        payload: memoryview, count: int, *, bits: int, lows: bool = True
    ) -> tuple["Grids", memoryview]:
        """Return the grids of ``count`` coordinates and what follows them in the payload.

        Raises:
            CodecError: if these are not grids of float32 numbers with ``2 ** bits`` levels.

        """
        scale_bytes = 8 if lows else 4
        starts, rest = read_groups(payload, count, scale_bytes=scale_bytes)
        size = scale_bytes * len(starts)
        if len(rest) < size:
            raise CodecError("the payload ends within its grids")
        values = np.frombuffer(rest[:size], dtype="<f4").astype(np.float32)
        steps = values[-len(starts) :]
        grids = Grids(starts, values[: len(starts)] if lows else np.zeros_like(steps), steps)
        # Even a grid from -max to max has unused levels beyond its ends, but not many.
        most = min(_LARGEST, 4 * _LARGEST / (2**bits - 1))
        if not _all_between(grids.lows, -_LARGEST, _LARGEST) or not _all_between(steps, 0, most):
            raise CodecError("the payload holds a grid that is not one of finite numbers")
        return grids, rest[size:]


def _all_between(values: F32, least: float, most: float) -> bool:
    """Return whether all are within bounds, which NaN is not."""
    if len(values) == 1:  # the usual case, in a tenth of the time
        return least <= float(values[0]) <= most
    return bool(((values >= least) & (values <= most)).all())


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """Yield beginning and end of each block of ``count`` coordinates."""
    for at in range(0, count, BLOCK):
        yield at, min(at + BLOCK, count)


class Levels:
    """The values of codes: ``low + step * shift + (step * unit) * code``, in float32.

    Magnitudes beyond the range of float32 become the largest of that range.

    Args:
        grids: the grid of each group.
        codes: returns the codes from one coordinate, a multiple of 8, up to another.
        count: number of coordinates.
        highest: the largest code that there can be.
        unit: steps between one code and the next; a power of 2.
        shift: steps from ``low`` to code 0.
        halves: all codes as half bytes, if that is how they came.

    """

    def __init__(
        self,
        grids: Grids,
        codes: Callable[[int, int], Codes],
        count: int,
        *,
        highest: int,
        unit: int = 1,
        shift: float = 0,
        halves: U8 | None = None,
    ) -> None:
        lows, steps = grids.lows, grids.steps
        self._shrunk = _shrinking(lows, steps)
        if self._shrunk is not None:
            lows, steps = lows * self._shrunk, steps * self._shrunk
        offsets = lows + steps * np.float32(shift)
        self._codes = codes
        self._count = count
        self._highest = highest
        self._halves = halves
        self._scales = Scales(
            grids.starts, steps * np.float32(unit), offsets if offsets.any() else None
        )
        ends = offsets if self._shrunk is None else offsets.astype(np.float64) / self._shrunk
        # A little more than that, for what rounding may have added.
        largest = _largest(ends, grids.steps, unit * highest) * (1 + 2.0**-20)
        self.largest = min(_LARGEST, largest)
        """No value is larger in magnitude."""

    def __len__(self) -> int:
        return self._count

    def values(self) -> F32:
        """Return the value of each coordinate."""
        values = np.empty(self._count, dtype=np.float32)
        for first, last in blocks(self._count):
            self._write(first, self._codes(first, last), values[first:last])
        return values

    def add_to(self, vector: F32 | F64, weight: float) -> None:
        """Add ``weight`` times the values to ``vector`` in place, in its precision.

        The result is that of :meth:`values`, a product and a sum, in less time and in the memory
        of a block.

        Args:
            vector: as many coordinates as there are codes.
            weight: what the values are multiplied by.

        """
        for first, last in blocks(self._count):
            codes, target = self._codes(first, last), vector[first:last]
            if self._shrunk is None:
                kernels.in_use.add_levels(codes, first, self._scales, target, weight)
                continue
            values = np.empty(last - first, dtype=np.float32)
            self._write(first, codes, values)
            kernels.in_use.add(target, values, weight)

    def add_at(self, vector: F32 | F64, indices: Index, weight: float) -> None:
        """Do as :meth:`add_to` at increasing indices, as many as there are codes.

        Raises:
            IndexError: if an index is beyond the vector.

        """
        if self._shrunk is not None:
            kernels.in_use.add_at(vector, indices, self.values(), weight)
            return
        if self._halves is not None:
            kernels.in_use.add_half_levels_at(self._halves, self._scales, vector, indices, weight)
            return
        for first, last in blocks(self._count):
            codes, own = self._codes(first, last), indices[first:last]
            kernels.in_use.add_levels_at(codes, first, self._scales, vector, own, weight)

    def add_signed_to(
        self,
        vector: F32 | F64,
        weight: float,
        signs: Callable[[int, int], NDArray[np.int8]],
    ) -> None:
        """Do as :meth:`add_to` with values that get signs first.

        Args:
            vector: as many coordinates as there are codes.
            weight: what the values are multiplied by.
            signs: returns 1 or -1 for each coordinate from one up to another.

        """
        scratch = np.empty(min(BLOCK, self._count), np.float32)
        for first, last in blocks(self._count):
            values = scratch[: last - first]
            self._write_signed(first, self._codes(first, last), values, signs(first, last))
            kernels.in_use.add(vector[first:last], values, weight)

    def _write_signed(self, first: int, codes: Codes, block: F32, signs: NDArray[np.int8]) -> None:
        """Write values with their signs; where ``low`` is 0, codes take these, which are shorter."""
        if self._scales.offsets is not None or self._highest > np.iinfo(np.int16).max:
            self._write(first, codes, block)
            np.multiply(block, signs, out=block)
        elif self._highest <= np.iinfo(np.int8).max:
            self._write(first, np.multiply(codes.view(np.int8), signs), block)
        else:
            self._write(first, np.multiply(codes, signs, dtype=np.int16), block)

    def _write(self, first: int, codes: Codes | NDArray[np.int8 | np.int16], block: F32) -> None:
        """Write the values of a block of codes."""
        kernels.in_use.levels(codes, first, self._scales, block)
        if self._shrunk is None:
            return
        for view, pick in by_group(block, first, self._scales.starts):
            limit = pick(_LARGEST * self._shrunk)
            np.clip(view, -limit, limit, out=view)
            np.divide(view, pick(self._shrunk), out=view)


def _shrinking(lows: F32, steps: F32) -> F32 | None:
    """Return what grids are multiplied by so that no sum overflows on its way; None if by 1."""
    if len(steps) == 1 and abs(float(lows[0])) + float(steps[0]) * 2**MAX_BITS <= _LARGEST:
        return None
    beyond = np.abs(lows.astype(np.float64)) + steps.astype(np.float64) * 2**MAX_BITS > _LARGEST
    return np.where(beyond, np.float32(1 / 16), np.float32(1)) if beyond.any() else None


def _largest(ends: F32 | F64, steps: F32, intervals: int) -> float:
    """Return the largest magnitude of grids with one of their ends at ``ends``."""
    if len(steps) == 1:
        end = float(ends[0])
        return max(0.0, -end, end + float(steps[0]) * intervals)
    low = ends.astype(np.float64)
    high = low + steps.astype(np.float64) * intervals
    return float(max(-low.min(initial=0), high.max(initial=0)))


def largest_magnitudes(vector: F32, starts: Index) -> F32:
    """Return the largest magnitude in each group.

    Raises:
        CodecError: if an entry is not finite.

    """
    if len(starts) > 1:
        return smallest_and_largest(vector, starts)[1]
    ends = [
        end
        for first, last in blocks(len(vector))
        for end in (vector[first:last].max(), -vector[first:last].min())
    ]
    largest: F32 = np.array(ends, dtype=np.float32).max(initial=0, keepdims=True)
    if not np.isfinite(largest[0]):
        check_finite(vector)
    return largest[: len(starts)]


def smallest_and_largest(vector: F32, starts: Index) -> tuple[F32, F32]:
    """Return the smallest and the largest magnitude in each group.

    Raises:
        CodecError: if an entry is not finite.

    """
    smallest = np.full(len(starts), np.inf, dtype=np.float32)
    largest = np.zeros(len(starts), dtype=np.float32)
    scratch = np.empty(min(BLOCK, len(vector)), dtype=np.float32)
    for first, last in blocks(len(vector)):
        moduli = np.abs(vector[first:last], out=scratch[: last - first])
        groups = groups_within(starts, first, last)
        cuts = np.maximum(starts[groups] - first, 0)
        for so_far, choose in ((smallest[groups], np.minimum), (largest[groups], np.maximum)):
            choose(so_far, choose.reduceat(moduli, cuts), out=so_far)
    if not np.isfinite(largest).all():
        check_finite(vector)
    return smallest, largest


def symmetric_grids(starts: Index, reach: F32 | F64, half: float) -> Grids:
    """Return grids of levels from ``-reach`` to ``reach`` in ``2 * half`` steps.

    With a whole number ``half``, level ``half`` is exactly 0. The outermost levels are ``reach`` up
    to the rounding of the step, which is upwards.

    Raises:
        CodecError: if ``reach`` or a step would be beyond the range of float32.

    """
    if len(reach) and reach.max() > _LARGEST:
        raise CodecError(
            f"a scale of {reach.max():.3g} would be needed; float32 ends at {_LARGEST:.3g}"
        )
    steps = _steps(reach, half)
    with np.errstate(over="ignore"):
        while (beyond := np.isinf(steps * np.float32(half))).any():
            steps[beyond] = np.nextafter(steps[beyond], np.float32(0))
    return Grids(starts, -(steps * np.float32(half)), steps)


def grids_between(starts: Index, lowest: F32, highest: F32, intervals: int) -> Grids:
    """Return grids from ``lowest`` up to ``highest`` in ``intervals`` steps, rounded upwards.

    A lowest magnitude that is no more of a step than dither can tell from 0 counts as 0, which
    saves a pass here and there.
    """
    reach = _steps(highest, intervals)
    lows = np.where(lowest < reach * np.float32(2.0**-16), np.float32(0), lowest)
    return Grids(starts, lows, _steps(highest - lows, intervals))


def _steps(spans: F32 | F64, intervals: float) -> F32:
    """Return float32 steps that reach across each span: no entry lies beyond the last level."""
    exact = spans.astype(np.float64) / intervals
    if len(exact) and exact.max() > _LARGEST:
        raise CodecError(
            f"a step of {exact.max():.3g} would be needed; float32 ends at {_LARGEST:.3g}"
        )
    steps = exact.astype(np.float32)
    short = steps < exact
    steps[short] = np.nextafter(steps[short], np.float32(np.inf))
    return steps


def packet_ranges(
    groups: Groups, dimension: int, *, head_bytes: int, scale_bytes: int, bits: int, limit: int
) -> list[tuple[int, int]]:
    """Return first coordinate and number of coordinates of packets that are as full as may be.

    Args:
        groups: whose scales each packet carries.
        dimension: coordinates of the vector.
        head_bytes: what each packet takes before its groups.
        scale_bytes: what each group takes besides its description.
        bits: what each coordinate takes.
        limit: most bytes of a packet.

    Raises:
        CodecError: if eight coordinates do not fit into one packet.

    """
    starts = groups.starts(dimension).tolist()
    group_bytes = scale_bytes if groups.layers is None else scale_bytes + 4
    free = limit - head_bytes - _GROUPS_HEAD_BYTES
    whole_blocks = lcm(8, groups.block or 1) // 8

    def too_long(eights: int) -> bool:
        inside = bisect_left(starts, first + 8 * eights) - bisect_right(starts, first) + 1
        return group_bytes * inside + bits * eights > free

    ranges = []
    first = 0
    while first < dimension:
        left = (dimension - first + 7) // 8
        most = min(free // bits, MAX_COORDINATES // 8, left)
        fits = most
        if too_long(most):
            fits = bisect_left(range(1, most + 1), 1, key=too_long)
        if fits < 1:
            raise CodecError(
                f"max_payload_bytes is {limit}; that is too little for eight coordinates and "
                "their scales"
            )
        if whole_blocks < fits < left:
            fits -= fits % whole_blocks
        count = min(8 * fits, dimension - first)
        ranges.append((first, count))
        first += count
    return ranges
