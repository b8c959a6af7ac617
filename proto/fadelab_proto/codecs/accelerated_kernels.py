"""The compiled form of :class:`fadelab_proto.codecs.kernels.Kernels`, which describes the functions.

Importing this module needs numba, and compiles what is not in its cache. Results are those of the
numpy form bit for bit: the same operations in float32 and in the same order, none of them fused.
"""

from typing import Any

import numpy as np
from numba import types

from fadelab_proto.codecs import plain_kernels
from fadelab_proto.codecs.accelerated_halves import float16
from fadelab_proto.codecs.accelerated_indices import indices
from fadelab_proto.codecs.compiling import compiled, read, ready, written
from fadelab_proto.codecs.plain_kernels import F32, F64, U8, Codes, Index, Scales

__all__ = [
    "add",
    "add_at",
    "add_half_levels_at",
    "add_levels",
    "add_levels_at",
    "float16",
    "half_bytes",
    "indices",
    "levels",
]

_U8, _U16 = read(types.uint8), read(types.uint16)
_I64, _F32 = read(types.int64), read(types.float32)
_NUMBER, _YES = types.int64, types.boolean


# -- adding -------------------------------------------------------------------------------------------

_PRECISIONS = (types.float32, types.float64)


@compiled(*(types.void(written(own), _F32, own) for own in _PRECISIONS))
def _add(vector: F32 | F64, values: F32, weight: Any) -> None:
    for at in range(len(values)):
        vector[at] += values[at] * weight


def add(vector: F32 | F64, values: F32, weight: float) -> None:  # noqa: D103
    if not ready(vector, values) or len(vector) != len(values):
        plain_kernels.add(vector, values, weight)
        return
    _add(vector, values, vector.dtype.type(weight))


@compiled(*(_YES(written(own), _I64, _F32, own) for own in _PRECISIONS))
def _add_at(vector: F32 | F64, indices: Index, values: F32, weight: Any) -> bool:
    limit = np.uint64(len(vector))
    for at in range(len(indices)):
        # One that is negative becomes a large one.
        index = np.uint64(indices[at])
        if index >= limit:
            return False
        vector[index] += values[at] * weight
    return True


def add_at(vector: F32 | F64, indices: Index, values: F32, weight: float) -> None:  # noqa: D103
    if not ready(vector, indices, values) or len(indices) != len(values):
        plain_kernels.add_at(vector, indices, values, weight)
    elif not _add_at(vector, indices, values, vector.dtype.type(weight)):
        raise IndexError(f"an index is not below {len(vector)}")


# -- values -------------------------------------------------------------------------------------------

_CODES = (_U8, _U16)
_SIGNED_CODES = (read(types.int8), read(types.int16))


@compiled(
    *(
        types.void(own, types.float32, types.float32, written(types.float32))
        for own in (*_CODES, *_SIGNED_CODES)
    )
)
def _scale(codes: Codes, factor: Any, offset: Any, values: F32) -> None:
    # Loops from 0 over whole arrays are what the compiler turns into vector instructions.
    for at in range(len(codes)):
        values[at] = np.float32(codes[at]) * factor + offset


@compiled(
    *(
        types.void(own, types.float32, types.float32, written(precision), precision)
        for own in _CODES
        for precision in _PRECISIONS
    )
)
def _add_scaled(codes: Codes, factor: Any, offset: Any, vector: F32 | F64, weight: Any) -> None:
    for at in range(len(codes)):
        vector[at] += (np.float32(codes[at]) * factor + offset) * weight


@compiled(
    *(
        types.void(own, _NUMBER, _I64, _F32, _F32, written(types.float32))
        for own in (*_CODES, *_SIGNED_CODES)
    )
)
def _levels(  # noqa: PLR0917 (numba knows arrays, not what holds them)
    codes: Codes, first: int, starts: Index, factors: F32, offsets: F32, values: F32
) -> None:
    group = np.searchsorted(starts, first, side="right") - 1
    at = 0
    while at < len(codes):
        end = min(len(codes), starts[group + 1] - first) if group + 1 < len(starts) else len(codes)
        _scale(codes[at:end], factors[group], offsets[group], values[at:end])
        at = end
        group += 1


@compiled(
    *(
        types.void(own, _NUMBER, _I64, _F32, _F32, written(precision), precision)
        for own in _CODES
        for precision in _PRECISIONS
    )
)
def _add_levels(  # noqa: PLR0917 (likewise)
    codes: Codes,
    first: int,
    starts: Index,
    factors: F32,
    offsets: F32,
    vector: F32 | F64,
    weight: Any,
) -> None:
    group = np.searchsorted(starts, first, side="right") - 1
    at = 0
    while at < len(codes):
        end = min(len(codes), starts[group + 1] - first) if group + 1 < len(starts) else len(codes)
        _add_scaled(codes[at:end], factors[group], offsets[group], vector[at:end], weight)
        at = end
        group += 1


def levels(codes: Codes, first: int, scales: Scales, values: F32) -> None:  # noqa: D103
    if not ready(codes, values):
        plain_kernels.levels(codes, first, scales, values)
        return
    _levels(codes, first, scales.starts, scales.factors, _offsets(scales), values)


def add_levels(  # noqa: D103
    codes: Codes, first: int, scales: Scales, vector: F32 | F64, weight: float
) -> None:
    if not ready(codes, vector) or len(codes) != len(vector):
        plain_kernels.add_levels(codes, first, scales, vector, weight)
        return
    exact = vector.dtype.type(weight)
    _add_levels(codes, first, scales.starts, scales.factors, _offsets(scales), vector, exact)


@compiled(
    *(
        _YES(own, _NUMBER, _I64, _F32, _F32, written(precision), _I64, precision)
        for own in _CODES
        for precision in _PRECISIONS
    )
)
def _add_levels_at(  # noqa: PLR0917 (likewise)
    codes: Codes,
    first: int,
    starts: Index,
    factors: F32,
    offsets: F32,
    vector: F32 | F64,
    indices: Index,
    weight: Any,
) -> bool:
    group = np.searchsorted(starts, first, side="right") - 1
    at, limit = 0, np.uint64(len(vector))
    while at < len(codes):
        end = min(len(codes), starts[group + 1] - first) if group + 1 < len(starts) else len(codes)
        factor, offset = factors[group], offsets[group]
        for own in range(at, end):
            index = np.uint64(indices[own])
            if index >= limit:
                return False
            vector[index] += (np.float32(codes[own]) * factor + offset) * weight
        at = end
        group += 1
    return True


def add_levels_at(  # noqa: D103, PLR0917
    codes: Codes,
    first: int,
    scales: Scales,
    vector: F32 | F64,
    indices: Index,
    weight: float,
) -> None:
    if not ready(codes, vector, indices) or len(codes) != len(indices):
        plain_kernels.add_levels_at(codes, first, scales, vector, indices, weight)
        return
    exact, offsets = vector.dtype.type(weight), _offsets(scales)
    starts, factors = scales.starts, scales.factors
    if not _add_levels_at(codes, first, starts, factors, offsets, vector, indices, exact):
        raise IndexError(f"an index is not below {len(vector)}")


@compiled(
    *(_YES(_U8, types.float32, types.float32, written(own), _I64, own) for own in _PRECISIONS)
)
def _add_half_levels_at(  # noqa: PLR0917 (likewise)
    packed: U8, factor: Any, offset: Any, vector: F32 | F64, indices: Index, weight: Any
) -> bool:
    levels, limit = np.empty(16, dtype=np.float32), np.uint64(len(vector))
    for code in range(16):
        levels[code] = np.float32(code) * factor + offset
    for own in range(len(indices)):
        at, index = np.uint64(own), np.uint64(indices[own])
        if index >= limit:
            return False
        octet = np.uint64(packed[at >> np.uint64(1)])
        half = (octet >> ((at & np.uint64(1)) << np.uint64(2))) & np.uint64(15)
        vector[index] += levels[half] * weight
    return True


def add_half_levels_at(  # noqa: D103
    packed: U8, scales: Scales, vector: F32 | F64, indices: Index, weight: float
) -> None:
    if len(scales.starts) > 1 or not ready(vector, indices) or 2 * len(packed) < len(indices):
        codes = half_bytes(packed, len(indices))
        add_levels_at(codes, 0, scales, vector, indices, weight)
        return
    factor, offset = scales.factors[0], _offsets(scales)[0]
    exact = vector.dtype.type(weight)
    if not _add_half_levels_at(packed, factor, offset, vector, indices, exact):
        raise IndexError(f"an index is not below {len(vector)}")


def _offsets(scales: Scales) -> F32:
    """Return -0 where nothing is to be added: unlike 0, it changes no number, not even -0."""
    if scales.offsets is not None:
        return scales.offsets
    return np.full(len(scales.factors), -0.0, dtype=np.float32)


@compiled(types.void(_U8, written(types.uint8)))
def _half_bytes(packed: U8, numbers: U8) -> None:
    for at in range(len(numbers) // 2):
        numbers[2 * at] = packed[at] & np.uint8(15)
        numbers[2 * at + 1] = packed[at] >> np.uint8(4)
    if len(numbers) % 2:
        numbers[-1] = packed[len(numbers) // 2] & np.uint8(15)


def half_bytes(packed: U8, count: int) -> U8:  # noqa: D103
    numbers = np.empty(count, dtype=np.uint8)
    _half_bytes(packed[: (count + 1) // 2], numbers)
    return numbers
