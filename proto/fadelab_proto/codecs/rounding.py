"""Rounding to the levels of a grid: to nearest, or up and down at random without bias."""

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs.base import F32
from fadelab_proto.codecs.bit_planes import Codes, code_type
from fadelab_proto.codecs.grids import BLOCK, Grids
from fadelab_proto.codecs.group_views import by_group

Floats = NDArray[np.floating]
FloatType = type[np.float32] | type[np.float64]

_LONG_LAG = 4 * 44_497
_SHORT_LAG = 4 * 21_034


class Dither:
    """Uniform random integers of 16 bits, in bulk.

    The first ones come from the generator. When these are used up, an additive lagged Fibonacci
    sequence goes on from them, ``x[n] = x[n - r] + x[n - s]`` modulo 2^16 in each of four lanes,
    which costs an eighth of the generator. What dither needs, it has: each number is uniform, and
    any two are independent. With r = 44497 and s = 21034, which belong to a primitive trinomial,
    its period is 2^15 (2^r - 1) (R. P. Brent, "On the periods of generalized Fibonacci
    recurrences", Mathematics of Computation, 1994).

    Args:
        generator: where the first numbers come from.
        size: how many numbers will be taken in all.

    """

    def __init__(self, generator: np.random.Generator, size: int) -> None:
        words = (min(size, _LONG_LAG) + 3) // 4
        drawn = generator.integers(0, 2**64, size=words, dtype=np.uint64)
        self._pool = drawn.view(np.uint16)
        self._used = 0

    def take(self, size: int) -> NDArray[np.uint16]:
        """Return ``size`` numbers, at most 177 988; they stay valid until the next call."""
        if self._used + size > len(self._pool):
            self._advance()
        taken = self._pool[self._used : self._used + size]
        self._used += size
        return taken

    def fill(self, numbers: Floats) -> None:
        """Write as many numbers as the array has room for."""
        half = _LONG_LAG // 2
        for at in range(0, len(numbers), half):
            piece = numbers[at : at + half]
            np.copyto(piece, self.take(len(piece)))

    def _advance(self) -> None:
        pool, lag = self._pool, _SHORT_LAG
        # In steps of the short lag, so that no step reads what it writes.
        pool[:lag] += pool[-lag:]
        pool[lag : 2 * lag] += pool[:lag]
        pool[2 * lag :] += pool[lag : len(pool) - lag]
        self._used = 0


class Rounder:
    """Turns the coordinates of one vector into codes; keeps its scratch from block to block.

    With dither, an entry between two levels goes to either with the probability that makes its
    expectation right, to within 2^-16 of a step; what lies on a level stays there. Without, it goes
    to the nearest level.

    Args:
        vector: what is rounded.
        grids: the grid of each group.
        bits: bits of each code.
        zero: where entries of value 0 lie, in steps from the lowest level.
        reach: the largest magnitude in each group, or the largest modulus over ``low``.
        most: how many steps that is at most.
        dither: what decides the direction, or None.
        moduli: whether magnitudes over ``low`` are rounded instead of entries; ``zero`` is 0 then.

    """

    def __init__(
        self,
        vector: F32,
        grids: Grids,
        *,
        bits: int,
        zero: float,
        reach: F32,
        most: float,
        dither: Dither | None,
        moduli: bool = False,
    ) -> None:
        # 24 bits are enough for a short code and its dither, unless 1 / step is hardly a float32.
        steps = grids.steps[grids.steps > 0]
        ordinary = ((steps > 2.0**-120) & (steps < 2.0**120)).all()
        short = bits <= 8 and dither is not None and ordinary
        float_type: FloatType = np.float32 if short else np.float64
        self._vector = vector
        self._starts = grids.starts
        self._lows: Floats | None = (
            grids.lows.astype(float_type) if moduli and grids.lows.any() else None
        )
        self._factors: Floats = _reciprocals(grids.steps, reach, most, float_type)
        self._zero = float_type(zero if dither is not None else zero + 0.5)
        self._dither = dither
        self._moduli = moduli
        size = min(BLOCK, len(vector))
        self._work = np.empty(size, dtype=float_type)
        self._thresholds = np.empty(size, dtype=float_type)
        self._codes: Codes = np.empty(size, dtype=code_type(bits))

    def codes(self, first: int, last: int) -> Codes:
        """Return the codes of coordinates ``first`` .. ``last - 1``; valid until the next call.

        At most ``BLOCK`` coordinates.
        """
        size = last - first
        work, codes = self._work[:size], self._codes[:size]
        if self._moduli:
            np.abs(self._vector[first:last], out=work)
        else:
            np.copyto(work, self._vector[first:last])
        for view, pick in by_group(work, first, self._starts):
            if self._lows is not None:
                np.subtract(view, pick(self._lows), out=view)
            np.multiply(view, pick(self._factors), out=view)
        if self._zero:
            np.add(work, self._zero, out=work)
        if self._dither is not None:
            thresholds = self._thresholds[:size]
            self._dither.fill(thresholds)
            np.multiply(thresholds, work.dtype.type(2.0**-16), out=thresholds)
            np.add(work, thresholds, out=work)
        np.copyto(codes, work, casting="unsafe")
        return codes


def _reciprocals(steps: F32, reach: F32, most: float, float_type: FloatType) -> Floats:
    """Return 1 / step, or a little less, so that ``reach`` times it is never above ``most``."""
    with np.errstate(divide="ignore"):
        exact = np.minimum(1 / steps.astype(np.float64), most / reach.astype(np.float64))
    factors: Floats = np.where(steps > 0, exact, 0).astype(float_type)
    farthest: Floats = reach.astype(float_type)
    while (above := farthest * factors > most).any():
        factors[above] = np.nextafter(factors[above], float_type(0))
    return factors
