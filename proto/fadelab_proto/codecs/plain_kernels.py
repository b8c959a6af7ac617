"""The numpy form of :class:`fadelab_proto.codecs.kernels.Kernels`, which describes the functions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs.group_views import by_group

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
I32 = NDArray[np.int32]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Index = NDArray[np.int64]
Codes = NDArray[np.uint8 | np.uint16 | np.int8 | np.int16]

_BLOCK = 1 << 17
"""Entries that are added at a time, so that a product stays in the cache and takes little memory."""
_INFINITE = 0x7C00


@dataclass(frozen=True, slots=True)
class Scales:
    """What turns codes into values, ``factor * code + offset``; one of each for every group."""

    starts: Index
    """First coordinate of each group."""
    factors: F32
    offsets: F32 | None
    """Nothing is added if None."""


@dataclass(frozen=True, slots=True)
class GolombRuns:
    """Golomb-coded gaps in runs of equal length; ``index_sets`` describes the layout."""

    planes: U8
    """The low bits."""
    digits: U8
    """The ternary digits."""
    quotients: U8
    """In unary."""
    low_bits: Index
    """How many each run's gaps have, falling."""
    ternary: NDArray[np.bool_]
    """Whether each run's gaps have ternary digits."""
    order: Index
    """Where each run belongs."""
    length: int
    """Gaps of each run."""


# -- adding -------------------------------------------------------------------------------------------


def add(vector: F32 | F64, values: F32, weight: float) -> None:  # noqa: D103
    if weight == 1.0:
        vector += values
        return
    scratch = np.empty(min(_BLOCK, len(values)), dtype=vector.dtype)
    for at in range(0, len(values), _BLOCK):
        target = vector[at : at + _BLOCK]
        product = scratch[: len(target)]
        # Widening first and multiplying then is faster than what numpy does for mixed types.
        np.copyto(product, values[at : at + _BLOCK])
        np.multiply(product, product.dtype.type(weight), out=product)
        np.add(target, product, out=target)


def add_at(vector: F32 | F64, indices: Index, values: F32, weight: float) -> None:  # noqa: D103
    weighted = np.multiply(values, weight, dtype=vector.dtype) if weight != 1.0 else values
    np.add.at(vector, indices, weighted)


# -- values -------------------------------------------------------------------------------------------


def levels(codes: Codes, first: int, scales: Scales, values: F32) -> None:  # noqa: D103
    np.copyto(values, codes)
    for view, pick in by_group(values, first, scales.starts):
        np.multiply(view, pick(scales.factors), out=view)
        if scales.offsets is not None:
            np.add(view, pick(scales.offsets), out=view)


def add_levels(  # noqa: D103
    codes: Codes, first: int, scales: Scales, vector: F32 | F64, weight: float
) -> None:
    values = np.empty(len(codes), dtype=np.float32)
    levels(codes, first, scales, values)
    add(vector, values, weight)


def add_levels_at(  # noqa: D103, PLR0917
    codes: Codes,
    first: int,
    scales: Scales,
    vector: F32 | F64,
    indices: Index,
    weight: float,
) -> None:
    values = np.empty(len(codes), dtype=np.float32)
    levels(codes, first, scales, values)
    add_at(vector, indices, values, weight)


def add_half_levels_at(  # noqa: D103
    packed: U8, scales: Scales, vector: F32 | F64, indices: Index, weight: float
) -> None:
    add_levels_at(half_bytes(packed, len(indices)), 0, scales, vector, indices, weight)


def half_bytes(packed: U8, count: int) -> U8:  # noqa: D103
    pairs = packed[: (count + 1) // 2].astype("<u2")
    pairs |= pairs << 4
    pairs &= 0x0F0F
    return pairs.view(np.uint8)[:count]


def float16(halves: U16) -> F32 | None:  # noqa: D103
    values = np.empty(len(halves), dtype=np.float32)
    for at in range(0, len(halves), _BLOCK):
        if not _widen_block(halves[at : at + _BLOCK], values[at : at + _BLOCK]):
            return None
    return values


def _widen_block(halves: U16, values: F32) -> bool:
    if (halves & np.uint16(0x7FFF)).max() >= _INFINITE:
        return False
    bits = values.view(np.int32)
    # As signed numbers, so that shifting brings copies of the sign to the top bit.
    np.copyto(bits, halves.view(np.int16))
    np.left_shift(bits, np.int32(13), out=bits)
    np.bitwise_and(bits, np.int32(-0x7000_0001), out=bits)
    np.multiply(values, np.float32(2.0**112), out=values)
    return True


# -- indices ------------------------------------------------------------------------------------------


def indices(data: U8, k: int, n: int) -> None:  # noqa: ARG001, D103
    return None


def ones(data: U8, size: int) -> Index | None:
    """Return the positions of the bits that are set, lowest bit first; None if not ``size``."""
    bits = np.unpackbits(data, bitorder="little").view(np.bool_)
    if np.count_nonzero(bits) != size:
        return None
    return np.flatnonzero(bits).astype(np.int64, copy=False)


def golomb_positions(runs: GolombRuns) -> Index | None:
    """Return the positions that gaps lead to; None if there are not as many quotients as gaps."""
    low_bits, length = runs.low_bits, runs.length
    shape = (len(low_bits), length)
    distances = _unary(runs.quotients, shape[0] * length)
    if distances is None:
        return None
    distances = distances.reshape(shape)
    remainders = read_low_bits(runs.planes, shape, low_bits)
    ternary = np.flatnonzero(runs.ternary)
    if len(ternary):
        digits = _digits(runs.digits, len(ternary) * length).reshape(-1, length)
        remainders[ternary] |= digits << low_bits[ternary, np.newaxis].astype(np.uint32)
    distances *= divisors(runs)[:, np.newaxis]
    remainders += np.uint32(1)
    distances += remainders
    ordered = np.empty_like(distances)
    ordered[runs.order] = distances
    positions = ordered.ravel()
    positions[0] -= 1
    np.cumsum(positions, out=positions)
    return positions


def divisors(runs: GolombRuns) -> Index:
    """Return what the gaps of each run are divided by."""
    return np.where(runs.ternary, 3, 1) << runs.low_bits


def read_low_bits(planes: U8, shape: tuple[int, int], low_bits: Index) -> U32:
    """Return what bit planes hold; ``low_bits`` of each row say how many planes cover it, falling."""
    bits = np.unpackbits(planes, count=int(low_bits.sum()) * shape[1], bitorder="little")
    numbers = np.zeros(shape, dtype=np.uint32)
    heights = rows_of_planes(low_bits)
    for octet in range(0, len(heights), 8):
        octets = np.zeros((heights[octet], shape[1]), dtype=np.uint8)
        for bit, rows in enumerate(heights[octet : octet + 8]):
            plane, bits = bits[: rows * shape[1]], bits[rows * shape[1] :]
            plane *= 1 << bit
            octets[:rows] |= plane.reshape(rows, -1)
        numbers[: len(octets)] |= octets.astype(np.uint32) << np.uint32(octet)
    return numbers


def rows_of_planes(low_bits: Index) -> list[int]:
    """Return how many rows each bit plane covers; ``low_bits`` falls from row to row."""
    return [int(np.count_nonzero(low_bits > bit)) for bit in range(int(low_bits[0]))]


def _unary(data: U8, size: int) -> Index | None:
    ends = ones(data, size)
    if ends is None:
        return None
    numbers = np.empty_like(ends)
    numbers[:1] = ends[:1]
    np.subtract(ends[1:], ends[:-1], out=numbers[1:])
    numbers[1:] -= 1
    return numbers


def _digits(data: U8, size: int) -> U8:
    rest = data.copy()
    rows = np.empty((5, len(rest)), dtype=np.uint8)
    for row, weight in zip(rows, (81, 27, 9, 3, 1), strict=True):
        np.floor_divide(rest, weight, out=row)
        rest -= row * np.uint8(weight)
    return rows.ravel()[:size]
