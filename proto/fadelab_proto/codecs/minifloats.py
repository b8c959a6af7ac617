"""Floating-point numbers of few bits whose exponents count down from the vector's largest one.

A code has, from the highest bit down, a sign, b bits of exponent code and m bits of mantissa, of
which the lowest may be unused. Exponent code 0 stands
for zero, code ``2**b - 1`` for the grid's largest exponent ``top``; what is below the smallest
exponent ``bottom`` becomes zero or ``2**bottom``. With :attr:`Grid.full` = 0 every entry has m
mantissa bits; otherwise the ``full`` largest exponents have, and every exponent below has one less
than the one above it, down to none.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs.base import F32, CodecError, check_finite
from fadelab_proto.codecs.bit_planes import MAX_BITS, Codes
from fadelab_proto.codecs.rounding import Dither

U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]

_BLOCK = 1 << 17
"""Entries that are worked on at a time, so that they stay in the processor's cache."""
_LOWEST, _HIGHEST = -149, 128
MAX_EXPONENT_BITS = 7


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that can be coded: all of float32's, where it has them.

    Args:
        exponent_bits: b, 1 to 7.
        mantissa_bits: m, at least 0; sign, exponent and mantissa have 16 bits at most.
        full: how many of the largest exponents have m mantissa bits; 0 if all have.
        top: the largest exponent, -149 to 128.

    """

    exponent_bits: int
    mantissa_bits: int
    full: int = 0
    top: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.exponent_bits <= MAX_EXPONENT_BITS:
            raise CodecError(
                f"{self.exponent_bits} exponent bits are impossible; 1 to {MAX_EXPONENT_BITS}"
            )
        if self.mantissa_bits < 0 or self.width > MAX_BITS:
            raise CodecError(
                f"{self.mantissa_bits} mantissa bits are impossible; with {self.exponent_bits} "
                f"exponent bits, 0 to {MAX_BITS - 1 - self.exponent_bits}"
            )
        if not _LOWEST <= self.top <= _HIGHEST:
            raise CodecError(f"{self.top} is not the exponent of a float32")

    @property
    def width(self) -> int:
        """Bits of a code: sign, exponent and mantissa."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def sign(self) -> int:
        """The highest bit of a code: that it is negative."""
        return 1 << (self.width - 1)

    @property
    def exponents(self) -> int:
        """How many exponents there are."""
        return (1 << self.exponent_bits) - 1

    @property
    def bottom(self) -> int:
        """The smallest exponent."""
        return self.top - self.exponents + 1

    @property
    def largest(self) -> float:
        """What no magnitude of the grid exceeds."""
        return min(float(np.finfo(np.float32).max), 2.0 ** (self.top + 1))

    def mantissa_bits_of(self, exponent_code: int) -> int:
        """Return how many mantissa bits an entry with this exponent code, at least 1, has."""
        below = self.exponents - exponent_code
        missing = below - self.full + 1 if self.full else 0
        return min(self.mantissa_bits, max(0, self.mantissa_bits - missing))


def largest_magnitude(vector: F32) -> float:
    """Return ``max |x|``, 0 for an empty vector.

    Raises:
        CodecError: naming the first entry that is not finite.

    """
    ends = [0.0]
    for start in range(0, len(vector), 2 * _BLOCK):
        block = vector[start : start + 2 * _BLOCK]
        ends += [float(block.max()), float(block.min())]
    if not np.isfinite(ends).all():
        check_finite(vector)
    return float(np.abs(ends).max())


def fitting_grid(
    largest: float, *, exponent_bits: int, mantissa_bits: int, adaptive: bool, dithered: bool
) -> Grid:
    """Return the grid that holds whatever magnitudes up to ``largest`` are rounded to.

    If the largest entry can be rounded up to the next power of two, the grid begins there. Clipping
    it instead would cost unbiasedness, or twice the bound on the error.
    """
    fraction, exponent = math.frexp(largest)
    top = exponent - 1 if largest else 0
    step = 2.0**-mantissa_bits
    carries = 2 * fraction > 2 - step if dithered else 2 * fraction >= 2 - step / 2
    full = 1 + carries if adaptive else 0
    return Grid(exponent_bits, mantissa_bits, full, top + carries)


def empty_codes(grid: Grid, count: int) -> Codes:
    """Return integers for ``count`` codes, not set."""
    return np.empty(count, np.uint8) if grid.width <= 8 else np.empty(count, np.uint16)


def exponent_codes(grid: Grid, codes: Codes) -> NDArray[np.uint8]:
    """Return the exponent code in each code."""
    exponents = np.right_shift(codes, codes.dtype.type(grid.mantissa_bits))
    np.bitwise_and(exponents, exponents.dtype.type(grid.exponents), out=exponents)
    return exponents.astype(np.uint8, copy=False)


class Quantiser:
    """Rounds runs of a vector to the codes of a grid, in memory that is kept between runs.

    With dither, rounding is stochastic: up with the probability that leaves an entry's expectation
    as it is, to within 2^-16 of a step, also between 0 and ``2**bottom``. Zeros stay zeros. Without,
    it is to nearest.
    """

    def __init__(self, grid: Grid, *, longest_run: int, dither: Dither | None) -> None:
        size = min(_BLOCK, longest_run)
        self._grid = grid
        # Where the grid reaches below float32's normal numbers, everything is scaled up to these.
        self._lift = max(0, -126 - grid.bottom)
        self._bottom = grid.bottom + self._lift
        self._magnitudes = np.empty(size, np.uint32)
        self._scratch = np.empty(size, np.uint32)
        self._kept = np.empty(size, np.bool_)
        self._negative = np.empty(size, np.bool_)
        self._dither = dither

    def codes(self, run: F32) -> Codes:
        """Return the codes of the entries of ``run``."""
        codes = empty_codes(self._grid, len(run))
        for start in range(0, len(run), _BLOCK):
            self._round(run[start : start + _BLOCK], codes[start : start + _BLOCK])
        return codes

    def _round(self, block: F32, codes: Codes) -> None:
        grid = self._grid
        if self._lift:
            block = times_power_of_two(block.copy(), self._lift)
        size = len(block)
        magnitudes = self._magnitudes[:size]
        np.bitwise_and(block.view(np.uint32), np.uint32(0x7FFFFFFF), out=magnitudes)
        random = None if self._dither is None else self._dither.take(size)
        kept = self._keep(magnitudes, random)
        self._prepare(magnitudes, random)
        bits = magnitudes.view(np.int32)
        np.clip(bits, np.int32((self._bottom + 127) << 23), np.int32(0x7FFFFFFF), out=bits)
        np.right_shift(bits, np.int32(23 - grid.mantissa_bits), out=bits)
        # Exponents are made relative in the narrow integers, modulo their size: that is cheaper.
        np.copyto(codes, bits, casting="unsafe")
        offset = (self._bottom + 126) << grid.mantissa_bits
        np.subtract(codes, codes.dtype.type(offset % (1 << 8 * codes.itemsize)), out=codes)
        negative = self._negative[:size]
        np.signbit(block, out=negative)
        signs = np.multiply(negative.view(np.uint8), codes.dtype.type(grid.sign))
        np.bitwise_or(codes, signs, out=codes)
        np.multiply(codes, kept.view(np.uint8), out=codes)

    def _keep(self, magnitudes: U32, random: U16 | None) -> NDArray[np.bool_]:
        """Return which entries do not become zero; whatever is 2**bottom or more never does."""
        size = len(magnitudes)
        kept = self._kept[:size]
        if random is None:
            half = np.float32(2.0 ** (self._bottom - 1))
            return np.greater_equal(magnitudes.view(np.float32), half, out=kept)
        thresholds = self._scratch[:size].view(np.float32)
        np.copyto(thresholds, random)
        times_power_of_two(thresholds, self._bottom - 16)
        return np.less(thresholds, magnitudes.view(np.float32), out=kept)

    def _prepare(self, magnitudes: U32, random: U16 | None) -> None:
        """Add what makes cutting the mantissas off a rounding: half a step, or a random part."""
        cut = self._cut(magnitudes)
        addend: np.uint32 | U32
        if random is None:
            addend = np.left_shift(np.uint32(1), cut - np.uint32(1))
        else:
            addend = self._scratch[: len(magnitudes)]
            np.copyto(addend, random)
            if self._grid.mantissa_bits <= 7:
                np.left_shift(addend, cut - np.uint32(16), out=addend)
            else:
                np.left_shift(addend, np.uint32(16), out=addend)
                np.right_shift(addend, np.uint32(32) - cut, out=addend)
        np.add(magnitudes, addend, out=magnitudes)
        if self._grid.full:
            # What is left below the cut would show in an entry that is rounded up to the next
            # exponent, which has a mantissa bit more.
            np.right_shift(magnitudes, cut, out=magnitudes)
            np.left_shift(magnitudes, cut, out=magnitudes)

    def _cut(self, magnitudes: U32) -> np.uint32 | U32:
        """Return how many of float32's 23 mantissa bits are cut off: from all, or from each."""
        grid = self._grid
        if not grid.full:
            return np.uint32(23 - grid.mantissa_bits)
        smallest_full = self._bottom + grid.exponents - grid.full
        cut = np.right_shift(magnitudes, np.uint32(23)).view(np.int32)
        np.subtract(smallest_full + 127, cut, out=cut)
        np.clip(cut, 0, grid.mantissa_bits, out=cut)
        np.add(cut, 23 - grid.mantissa_bits, out=cut)
        return cut.view(np.uint32)


def dequantise(grid: Grid, codes: Codes) -> F32:
    """Return the numbers that the codes of a grid stand for."""
    # The sign is the highest bit of the integer too, so that widening repeats it.
    spare = 8 * codes.itemsize - grid.width
    if spare:
        codes = np.multiply(codes, codes.dtype.type(1 << spare))
    signed = codes.view(np.int8 if codes.itemsize == 1 else np.int16)
    shift = np.int32(23 - grid.mantissa_bits - spare)
    kept = np.int32((1 << (23 + grid.exponent_bits)) - 1 - 2**31)
    values = np.empty(len(codes), np.float32)
    for start in range(0, len(codes), _BLOCK):
        block = values[start : start + _BLOCK]
        bits = block.view(np.int32)
        # In the place of float32's exponent, exponent code e reads as 2**(e - 127).
        np.copyto(bits, signed[start : start + _BLOCK])
        np.left_shift(bits, shift, out=bits)
        np.bitwise_and(bits, kept, out=bits)
        with np.errstate(over="ignore"):
            times_power_of_two(block, grid.bottom + 126)
    if grid.top == _HIGHEST:
        # Rounding carried an entry beyond the largest float32, which is then the nearest number.
        np.clip(values, np.finfo(np.float32).min, np.finfo(np.float32).max, out=values)
    return values


def times_power_of_two(values: F32, exponent: int) -> F32:
    """Multiply ``values`` by ``2**exponent`` in place and return them.

    In steps that float32 can write, the largest one last if the values shrink: this way nothing is
    lost before the end.
    """
    while exponent:
        step = min(exponent, 127) if exponent >= -126 else max(exponent + 126, -126)
        np.multiply(values, np.float32(2.0**step), out=values)
        exponent -= step
    return values
