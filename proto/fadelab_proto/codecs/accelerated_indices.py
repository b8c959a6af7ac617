"""The compiled form of reading indices; see :mod:`fadelab_proto.codecs.accelerated_kernels`."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fadelab_proto.codecs.compiling import U64, compiled, read, words, written
from fadelab_proto.codecs.plain_kernels import U8, U32, GolombRuns, Index, divisors

_U8, _U32, _U64 = read(types.uint8), read(types.uint32), read(types.uint64)
_I64, _FLAG = read(types.int64), read(types.boolean)
_NUMBER, _YES = types.int64, types.boolean
_AT_ONCE = 8
_SLACK = 64


def _one_word(name: str) -> Any:
    """Return a function of one word, one instruction, by its name in LLVM."""

    @intrinsic
    def function(context: Any, word: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            if name == "cttz":
                return builder.cttz(values[0], ir.Constant(ir.IntType(1), 0))
            return builder.ctpop(values[0])

        return types.uint64(types.uint64), generate

    return function


_trailing_zeros, _population = _one_word("cttz"), _one_word("ctpop")


@compiled(_YES(_U64, _NUMBER, written(types.int64)))
def _ones(data: U64, size: int, positions: Index) -> bool:
    """Write ``size`` positions, and perhaps some more of no meaning: there must be slack."""
    # Of indices without sign, the compiler knows that they do not count from the end.
    one, found, most = np.uint64(1), np.uint64(0), np.uint64(size)
    for at in range(len(data)):
        word, first = data[at], np.int64(at) * 64
        after = found + _population(word)
        if after > most:
            return False
        while found < after:
            # Eight at a time, whether there are as many or not: fewer turns to be guessed.
            for own in range(_AT_ONCE):
                positions[found + np.uint64(own)] = first + np.int64(_trailing_zeros(word))
                word &= word - one
            found += np.uint64(_AT_ONCE)
        found = after
    return bool(found == most)


def ones(data: U8, size: int) -> Index | None:  # noqa: D103
    if size > 8 * len(data):
        return None
    positions = np.empty(size + _SLACK, dtype=np.int64)
    return positions[:size] if _ones(words(data), size, positions) else None


@compiled(types.void(_U8, _U8, _NUMBER, _NUMBER, written(types.uint64)))
def _set_bits(data: U8, following: U8, shift: int, bit: int, octets: U64) -> None:
    """Set a bit of the bytes of each word from eight bits of data that begin at bit ``shift``."""
    for at in range(len(octets)):
        pair = np.uint32(data[at]) | (np.uint32(following[at]) << np.uint32(8))
        word = np.uint64((pair >> np.uint32(shift)) & np.uint32(0xFF))
        word |= word << np.uint64(8)
        word |= word << np.uint64(16)
        word |= word << np.uint64(32)
        # Each byte keeps another one of the eight bits, which then moves to its lowest place.
        word &= np.uint64(0x8040201008040201)
        word = (word + np.uint64(0x00406070787C7E7F)) >> np.uint64(7)
        octets[at] |= (word & np.uint64(0x0101010101010101)) << np.uint64(bit)


@compiled(types.void(written(types.uint32), _U8, _NUMBER))
def _raise(numbers: U32, octets: U8, shift: int) -> None:
    for at in range(len(numbers)):
        numbers[at] |= np.uint32(octets[at]) << np.uint32(shift)


@compiled(types.void(_U8, _I64, _NUMBER, written(types.uint32)))
def _low_bits(planes: U8, low_bits: Index, length: int, numbers: U32) -> None:
    rows, begin = len(low_bits), 0
    octets = np.zeros((len(numbers) + 7) >> 3, dtype=np.uint64)
    for bit in range(low_bits[0]):
        while low_bits[rows - 1] <= bit:
            rows -= 1
        count = rows * length
        at, full, left = begin >> 3, count >> 3, count & 7
        _set_bits(
            planes[at : at + full],
            planes[at + 1 : at + 1 + full],
            begin & 7,
            bit & 7,
            octets[:full],
        )
        if left:
            at += full
            pair = np.uint32(planes[at]) | (np.uint32(planes[at + 1]) << np.uint32(8))
            for own in range(left):
                one = np.uint64((pair >> np.uint32((begin & 7) + own)) & np.uint32(1))
                octets[full] |= one << np.uint64(8 * own + (bit & 7))
        begin += count
        if bit & 7 == 7 or bit + 1 == low_bits[0]:
            _raise(numbers, octets.view(np.uint8), bit & ~7)
            octets[:] = np.uint64(0)


@compiled(types.void(_U8, written(types.uint8)))
def _digits(data: U8, digits: U8) -> None:
    """Write the digits of all bytes: first their highest ones, then the next."""
    columns = len(data)
    first, second, third = digits[:columns], digits[columns:], digits[2 * columns :]
    fourth, fifth = digits[3 * columns :], digits[4 * columns :]
    for at in range(columns):
        rest = data[at]
        first[at] = rest // np.uint8(81)
        second[at] = rest % np.uint8(81) // np.uint8(27)
        third[at] = rest % np.uint8(27) // np.uint8(9)
        fourth[at] = rest % np.uint8(9) // np.uint8(3)
        fifth[at] = rest % np.uint8(3)


@compiled(types.void(_U8, _I64, _FLAG, _NUMBER, written(types.uint32)))
def _raise_digits(
    digits: U8, low_bits: Index, ternary: NDArray[np.bool_], length: int, numbers: U32
) -> None:
    used = 0
    for run in range(len(ternary)):
        if ternary[run]:
            own = numbers[run * length : (run + 1) * length]
            _raise(own, digits[used : used + length], low_bits[run])
            used += length


@compiled(types.void(_I64, _U32, _I64, _I64, _NUMBER, written(types.int64)))
def _add_up(  # noqa: PLR0917 (numba knows arrays, not what holds them)
    ends: Index, remainders: U32, divisors: Index, places: Index, length: int, positions: Index
) -> None:
    """Add up the gaps of runs that lie at ``places`` of what was coded."""
    total = -1
    for run in range(len(places)):
        begin, divisor = places[run] * length, divisors[places[run]]
        before = ends[begin - 1] if begin > 0 else -1
        own, rests = ends[begin : begin + length], remainders[begin : begin + length]
        reached = positions[run * length : (run + 1) * length]
        reached[0] = (own[0] - before - 1) * divisor + np.int64(rests[0]) + 1
        for at in range(1, len(reached)):
            reached[at] = (own[at] - own[at - 1] - 1) * divisor + np.int64(rests[at]) + 1
        for at in range(len(reached)):
            total += reached[at]
            reached[at] = total


def golomb_positions(runs: GolombRuns) -> Index | None:  # noqa: D103
    low_bits, ternary, length = runs.low_bits, runs.ternary, runs.length
    gaps, bits = len(low_bits) * length, int(low_bits.sum()) * length
    digital = int(np.count_nonzero(ternary)) * length
    if bits > 8 * len(runs.planes) or digital > 5 * len(runs.digits):
        return None
    ends = ones(runs.quotients, gaps)
    if ends is None:
        return None
    remainders = np.zeros(gaps, dtype=np.uint32)
    _low_bits(words(runs.planes).view(np.uint8), low_bits, length, remainders)
    if digital:
        digits = np.empty(5 * len(runs.digits), dtype=np.uint8)
        _digits(runs.digits, digits)
        _raise_digits(digits, low_bits, ternary, length, remainders)
    places = np.empty_like(runs.order)
    places[runs.order] = np.arange(len(places))
    positions = np.empty(gaps, dtype=np.int64)
    _add_up(ends, remainders, divisors(runs), places, length, positions)
    return positions
