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

from fadelab_proto.codecs.base import F32, CodecError, Index, check_finite
from fadelab_proto.codecs.bit_planes import MAX_BITS, Codes
from fadelab_proto.codecs.groups import Groups, read_groups, write_groups

F64 = NDArray[np.float64]

BLOCK = 1 << 18
"""Coordinates that are worked on together: scratch stays in the cache, calls are few."""
MAX_COORDINATES = 1 << 20
"""Most coordinates of one packet: four mebibytes when decoded."""

_LARGEST = float(np.finfo(np.float32).max)
_GROUPS_HEAD_BYTES = 12
_SMALL_GROUP = 64

Pick = Callable[[NDArray[np.floating]], NDArray[np.floating]]


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
        if not (np.isfinite(values).all() and ((steps >= 0) & (steps <= most)).all()):
            raise CodecError("the payload holds a grid that is not one of finite numbers")
        return grids, rest[size:]


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """Yield beginning and end of each block of ``count`` coordinates."""
    for at in range(0, count, BLOCK):
        yield at, min(at + BLOCK, count)


def groups_within(starts: Index, first: int, last: int) -> slice:
    """Return which groups have coordinates in ``first`` .. ``last - 1``."""
    if len(starts) == 1:
        return slice(0, 1)
    begin = int(starts.searchsorted(first, side="right")) - 1
    return slice(begin, int(starts.searchsorted(last, side="left")))


def by_group(
    block: NDArray[np.floating], first: int, starts: Index
) -> Iterator[tuple[NDArray[np.floating], Pick]]:
    """Yield views that cover a block, each with what takes one number per group to its shape.

    Groups of the same size become the rows of one view; small groups of different sizes share a
    view, so that the number of views stays small against the block.

    Args:
        block: coordinates ``first`` and following; contiguous.
        first: the block's first coordinate.
        starts: first coordinate of each group.

    """
    if len(starts) == 1:
        yield block, lambda values: values
        return
    groups = groups_within(starts, first, first + len(block))
    edges = np.concatenate((starts[groups], (first + len(block),))) - first
    edges[0] = 0
    sizes = edges[1:] - edges[:-1]
    if len(sizes) == 1:
        yield block, lambda values: values[groups]
        return
    turns = (sizes[1:] != sizes[:-1]).nonzero()[0] + 1
    if len(turns) * _SMALL_GROUP > len(block):
        yield block, lambda values: np.repeat(values[groups], sizes)
        return
    for begin, end in zip([0, *turns], [*turns, len(sizes)], strict=True):
        rows = block[edges[begin] : edges[end]].reshape(end - begin, -1)
        here = slice(groups.start + begin, groups.start + end)
        yield rows, lambda values, here=here: values[here, np.newaxis]  # type: ignore[misc]


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
    ) -> None:
        ends = np.abs(grids.lows.astype(np.float64)) + grids.steps.astype(np.float64) * 2**MAX_BITS
        # Where a sum could overflow on its way, it is taken sixteen times smaller.
        scale = np.where(ends > _LARGEST, np.float32(1 / 16), np.float32(1))
        offsets = grids.lows * scale + grids.steps * scale * np.float32(shift)
        self._starts = grids.starts
        self._codes = codes
        self._count = count
        self._highest = highest
        self._scale = scale if (scale != 1).any() else None
        self._factors = grids.steps * scale * np.float32(unit)
        self._offsets = offsets if offsets.any() else None
        ends = offsets / scale.astype(np.float64)
        ends = np.maximum(
            np.abs(ends), np.abs(ends + grids.steps.astype(np.float64) * (unit * highest))
        )
        # A little more than that, for what rounding may have added.
        self.largest = min(_LARGEST, float(ends.max(initial=0)) * (1 + 2.0**-20))
        """No value is larger in magnitude."""

    def values(self) -> F32:
        """Return the value of each coordinate."""
        values = np.empty(self._count, dtype=np.float32)
        for first, last in blocks(self._count):
            self._write(first, last, values[first:last])
        return values

    def add_to(
        self,
        vector: F32 | F64,
        weight: float,
        signs: Callable[[int, int], NDArray[np.int8]],
    ) -> None:
        """Add ``weight`` times the signed values to ``vector`` in place, in its precision.

        The result is that of :meth:`values`, a product and a sum, in less time and in the memory
        of a block.

        Args:
            vector: as many coordinates as there are codes.
            weight: what the values are multiplied by.
            signs: returns 1 or -1 for each coordinate from one up to another.

        """
        scratch = np.empty(min(BLOCK, self._count), np.float32)
        for first, last in blocks(self._count):
            values = scratch[: last - first]
            self._write_signed(first, last, values, signs(first, last))
            weighted: F32 | F64 = values
            if weight != 1.0:
                weighted = np.multiply(values, weight, dtype=vector.dtype)
            vector[first:last] += weighted

    def _write_signed(self, first: int, last: int, block: F32, signs: NDArray[np.int8]) -> None:
        """Write values with their signs; where ``low`` is 0, codes take these, which are shorter."""
        codes = self._codes(first, last)
        if self._offsets is not None or self._highest > np.iinfo(np.int16).max:
            np.copyto(block, codes)
            self._scale_up(first, block)
            np.multiply(block, signs, out=block)
            return
        if self._highest <= np.iinfo(np.int8).max:
            np.copyto(block, np.multiply(codes.view(np.int8), signs))
        else:
            np.copyto(block, np.multiply(codes, signs, dtype=np.int16))
        self._scale_up(first, block)

    def _write(self, first: int, last: int, block: F32) -> None:
        np.copyto(block, self._codes(first, last))
        self._scale_up(first, block)

    def _scale_up(self, first: int, block: F32) -> None:
        """Turn a block of codes into their values in place."""
        for view, pick in by_group(block, first, self._starts):
            np.multiply(view, pick(self._factors), out=view)
            if self._offsets is not None:
                np.add(view, pick(self._offsets), out=view)
            if self._scale is not None:
                limit = pick(_LARGEST * self._scale)
                np.clip(view, -limit, limit, out=view)
                np.divide(view, pick(self._scale), out=view)


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
        CodecError: if a step would be beyond the range of float32.

    """
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
