"""How many exponent and mantissa bits a vector needs, or can have within a budget.

All pairs of exponent and mantissa bits are judged by their expected normalised mean squared error,
``sum((Q(x) - x)**2) / sum(x**2)``, and by their nominal bits per entry. Vectors of more than 65 536
entries, or than another number that is asked for, are judged by about as many of them, at equal
distances, and by the largest one, which decides where the exponents begin.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs.base import F32, CodecError
from fadelab_proto.codecs.bit_planes import MAX_BITS
from fadelab_proto.codecs.emq import EmqAdaptive, EmqFixed, Rounding
from fadelab_proto.codecs.minifloats import (
    MAX_EXPONENT_BITS,
    Grid,
    fitting_grid,
    largest_magnitude,
)

F64 = NDArray[np.float64]

_SAMPLES = 1 << 16


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one choice of bits costs and brings."""

    codec: EmqFixed | EmqAdaptive
    nmse: float
    """Expected normalised mean squared error; 0 for a vector of zeros."""
    bits_per_entry: float
    """Expected nominal bits."""


def judge_all(
    vector: F32, *, adaptive: bool, rounding: Rounding = "nearest", samples: int = _SAMPLES
) -> tuple[Judgement, ...]:
    """Return what each pair of exponent and mantissa bits means for a vector, at least one entry.

    Raises:
        CodecError: if an entry is not finite, or there is none.

    """
    if not len(vector):
        raise CodecError("a vector without entries needs no bits")
    largest = largest_magnitude(vector)
    stride = max(1, len(vector) // samples)
    sample = np.abs(vector[::stride].astype(np.float64))
    return tuple(
        _judge(
            sample,
            fitting_grid(
                largest,
                exponent_bits=exponent_bits,
                mantissa_bits=mantissa_bits,
                adaptive=adaptive,
                dithered=rounding == "stochastic",
            ),
            EmqAdaptive(exponent_bits, mantissa_bits, rounding)
            if adaptive
            else EmqFixed(exponent_bits, mantissa_bits, rounding),
        )
        for exponent_bits, mantissa_bits in _pairs()
    )


def coarsest_within_error(
    vector: F32,
    nmse: float,
    *,
    adaptive: bool,
    rounding: Rounding = "nearest",
    samples: int = _SAMPLES,
) -> EmqFixed | EmqAdaptive:
    """Return the codec of fewest bits whose error is ``nmse`` at most.

    Raises:
        CodecError: if none is that accurate, or the vector has no or infinite entries.

    """
    judged = judge_all(vector, adaptive=adaptive, rounding=rounding, samples=samples)
    good = [one for one in judged if one.nmse <= nmse]
    if not good:
        best = min(one.nmse for one in judged)
        raise CodecError(f"no EMQ code reaches an NMSE of {nmse:g}; the best has {best:.3g}")
    return min(good, key=lambda one: (one.bits_per_entry, one.nmse)).codec


def finest_within_bits(
    vector: F32,
    bits: int,
    *,
    adaptive: bool,
    rounding: Rounding = "nearest",
    samples: int = _SAMPLES,
) -> EmqFixed | EmqAdaptive:
    """Return the codec of smallest error whose nominal bits for the vector are ``bits`` at most.

    Raises:
        CodecError: if none is that short, or the vector has no or infinite entries.

    """
    judged = judge_all(vector, adaptive=adaptive, rounding=rounding, samples=samples)
    short = [one for one in judged if one.bits_per_entry * len(vector) <= bits]
    if not short:
        least = min(one.bits_per_entry for one in judged) * len(vector)
        raise CodecError(f"no EMQ code of {bits} bits; the shortest takes {least:.0f}")
    return min(short, key=lambda one: (one.nmse, one.bits_per_entry)).codec


def _pairs() -> Iterator[tuple[int, int]]:
    for exponent_bits in range(1, MAX_EXPONENT_BITS + 1):
        for mantissa_bits in range(MAX_BITS - exponent_bits):
            yield exponent_bits, mantissa_bits


def _judge(sample: F64, grid: Grid, codec: EmqFixed | EmqAdaptive) -> Judgement:
    lower, upper = _neighbours(grid, sample)
    up = (sample - lower) / (upper - lower)
    if codec.rounding == "nearest":
        up = np.where(up >= 0.5, 1.0, 0.0)
    errors = up * (upper - sample) ** 2 + (1 - up) * (sample - lower) ** 2
    energy = float((sample**2).sum())
    nmse = float(errors.sum()) / energy if energy else 0.0
    if not grid.full:
        return Judgement(codec, nmse, grid.width)
    bits = up * _mantissa_and_sign(grid, upper) + (1 - up) * _mantissa_and_sign(grid, lower)
    return Judgement(codec, nmse, grid.exponent_bits + float(bits.mean()))


def _neighbours(grid: Grid, magnitudes: F64) -> tuple[F64, F64]:
    """Return the numbers of the grid at or below each magnitude, and next above it."""
    exponents = np.frexp(magnitudes)[1] - 1
    steps = np.ldexp(1.0, exponents - _mantissa_bits(grid, exponents))
    lower = np.floor(magnitudes / steps) * steps
    smallest = 2.0**grid.bottom
    small = magnitudes < smallest
    return np.where(small, 0.0, lower), np.where(small, smallest, lower + steps)


def _mantissa_and_sign(grid: Grid, rounded: F64) -> F64:
    """Return the bits besides the exponent's of numbers of the grid."""
    bits = 1 + _mantissa_bits(grid, np.frexp(rounded)[1] - 1)
    return np.where(rounded > 0, bits, 0).astype(np.float64)


def _mantissa_bits(grid: Grid, exponents: NDArray[np.int32]) -> NDArray[np.int64]:
    codes = np.clip(exponents - grid.bottom + 1, 1, grid.exponents)
    table = [0, *(grid.mantissa_bits_of(code) for code in range(1, grid.exponents + 1))]
    return np.array(table)[codes]
