"""The compiled form of float16, which computes values when they are added."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types

from fadelab_proto.codecs import plain_kernels
from fadelab_proto.codecs.compiling import anywhere, compiled, read, ready, written
from fadelab_proto.codecs.plain_kernels import F32, F64, U16, Index

_HALVES, _I64, _YES = anywhere(types.uint16), read(types.int64), types.boolean
_PRECISIONS = (types.float32, types.float64)


def float16(halves: U16) -> "Halves | None":  # noqa: D103
    return Halves(halves) if _all_finite(halves) else None


@dataclass(frozen=True, slots=True)
class Halves:
    """Finite numbers of 16 bits; see :class:`fadelab_proto.codecs.kernels.Computed`."""

    numbers: U16

    def __len__(self) -> int:
        return len(self.numbers)

    def values(self) -> F32:  # noqa: D102
        values = np.empty(len(self), dtype=np.float32)
        _widen(self.numbers, values)
        return values

    def add_to(self, vector: F32 | F64, weight: float) -> None:  # noqa: D102
        if not ready(vector) or len(vector) != len(self):
            plain_kernels.add(vector, self.values(), weight)
            return
        _add(vector, self.numbers, vector.dtype.type(weight))

    def add_at(self, vector: F32 | F64, indices: Index, weight: float) -> None:  # noqa: D102
        if not ready(vector, indices) or len(indices) != len(self):
            plain_kernels.add_at(vector, indices, self.values(), weight)
        elif not _add_at(vector, indices, self.numbers, vector.dtype.type(weight)):
            raise IndexError(f"an index is not below {len(vector)}")


@compiled(_YES(_HALVES))
def _all_finite(halves: U16) -> bool:
    infinite = False
    for at in range(len(halves)):
        infinite |= (halves[at] & np.uint16(0x7FFF)) >= np.uint16(0x7C00)
    return not infinite


@compiled(types.float32(types.uint16))
def _value(half: Any) -> Any:
    sign = np.uint32(half & np.uint16(0x8000)) << np.uint32(16)
    bits = np.uint32(sign | (np.uint32(half & np.uint16(0x7FFF)) << np.uint32(13)))
    return bits.view(np.float32) * np.float32(2.0**112)


@compiled(types.void(_HALVES, written(types.float32)))
def _widen(halves: U16, values: F32) -> None:
    for at in range(len(halves)):
        values[at] = _value(halves[at])


@compiled(*(types.void(written(own), _HALVES, own) for own in _PRECISIONS))
def _add(vector: F32 | F64, halves: U16, weight: Any) -> None:
    for at in range(len(halves)):
        vector[at] += _value(halves[at]) * weight


@compiled(*(_YES(written(own), _I64, _HALVES, own) for own in _PRECISIONS))
def _add_at(vector: F32 | F64, indices: Index, halves: U16, weight: Any) -> bool:
    limit = np.uint64(len(vector))
    for at in range(len(indices)):
        index = np.uint64(indices[at])
        if index >= limit:
            return False
        vector[index] += _value(halves[at]) * weight
    return True
