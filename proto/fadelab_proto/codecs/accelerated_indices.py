"""The compiled form of reading indices; ``index_sets`` describes the codes.

A payload is gone through once to see where each run of quotients begins. Then runs are read one
after the other, in the order of their indices, so that whatever is between bits and indices stays in
the processor's nearest cache. Sizes and offsets are checked against the payload before it is read.
"""

from typing import Any

import numpy as np
from numba import types

from fadelab_proto.codecs.compiling import compiled, read, written
from fadelab_proto.codecs.index_sets import FACTORS, LOW_BITS, RUN, IndexCode
from fadelab_proto.codecs.instructions import (
    population,
    set_octets,
    trailing_zeros,
    whole_word,
    write_eight,
)
from fadelab_proto.codecs.plain_kernels import I32, U8, U32, Index

_BYTES, _OCTETS = read(types.uint8), written(types.uint8)
_I64, _NUMBER, _YES = written(types.int64), types.int64, types.boolean
_JUNK = 16
"""Entries that an array needs beyond those of meaning: whole words are written."""

_LONGEST = 1 << 28
"""Bytes up to which bits are counted in 32 bits."""

_BITMAP, _GOLOMB = int(IndexCode.BITMAP), int(IndexCode.GOLOMB)
_ADAPTIVE, _STEPS, _RUN = int(IndexCode.ADAPTIVE), len(LOW_BITS), RUN
_LOW_BITS, _FACTORS = LOW_BITS.astype(np.int64), FACTORS.astype(np.int64)
# Quotients by 81, 27, 9, 3 and 1 as products and shifts: exact for every byte, and for what a
# digit's place leaves over. The highest place has no larger one to be reduced by.
_PLACES = np.array([810, 2428, 7282, 21846, 65536], dtype=np.uint32)
_ABOVE = np.array([0, 3, 3, 3, 3], dtype=np.uint32)

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little")
# Where the bits of each byte are set: eight bytes as a word, the last ones of no meaning.
_ONES = np.argsort(1 - _BITS, axis=1, kind="stable").astype(np.uint8).view(np.uint64).ravel()


@compiled(types.uint64(_BYTES, _NUMBER))
def _word(data: U8, at: int) -> Any:
    """Return eight bytes from ``at`` on, those beyond the end as 0."""
    if at + 8 <= len(data):
        return whole_word(data, at)
    word = np.uint64(0)
    for own in range(max(0, len(data) - at)):
        word |= np.uint64(data[at + own]) << np.uint64(8 * own)
    return word


@compiled(types.uint64(_BYTES, _NUMBER, _NUMBER))
def _bits(data: U8, at: int, bit: int) -> Any:
    """Return 64 bits from bit number ``bit`` behind byte ``at`` on, those beyond the end as 0."""
    at, shift = at + (bit >> 3), np.uint64(bit & 7)
    if at + 8 >= len(data):
        high = _word(data, at + 8) << np.uint64(1)
        return (_word(data, at) >> shift) | (high << (np.uint64(63) - shift))
    high = np.uint64(data[np.uint64(at + 8)]) << np.uint64(1)
    return (whole_word(data, at) >> shift) | (high << (np.uint64(63) - shift))


@compiled(
    *(types.void(_BYTES, _NUMBER, _NUMBER, _NUMBER, own) for own in (_I64, written(types.int32)))
)
def _find_ones(data: U8, at: int, begin: int, size: int, positions: Any) -> None:
    """Write how far behind bit ``begin`` behind byte ``at`` bits are set, as far as there are any.

    Some entries of no meaning follow the ``size`` ones that are asked for.
    """
    at += begin >> 3
    first, found = -(begin & 7), np.int64(0)
    byte = np.int64(data[at]) & (0xFF << (begin & 7))
    while True:
        # Eight at a time, whether there are as many or not: no turn has to be guessed.
        write_eight(positions, found, _ONES[np.uint64(byte)], first)
        found += np.int64(population(np.uint64(byte)))
        at += 1
        if found >= size or at >= len(data):
            return
        first += 8
        byte = np.int64(data[np.uint64(at)])


@compiled(_NUMBER(_BYTES, _NUMBER))
def _count_ones(data: U8, at: int) -> Any:
    count = np.uint64(0)
    while at < len(data):
        count += population(_word(data, at))
        at += 8
    return np.int64(count)


@compiled(_YES(_BYTES, _NUMBER, _NUMBER, _I64))
def _read_bitmap(data: U8, k: int, n: int, positions: Index) -> bool:
    if len(data) != 1 + ((n + 7) >> 3) or _count_ones(data, 1) != k:
        return False
    _find_ones(data, 1, 0, k, positions)
    return bool(positions[k - 1] < n)


@compiled(_YES(_BYTES, _NUMBER, _I64))
def _read_steps(data: U8, end: Any, steps: Index) -> bool:
    """Write the steps of the divisors of all runs; their differences end at byte ``end``."""
    step: Any = np.int64(data[1])
    found, last = 0, np.int64(-1)
    if step >= _STEPS or (end > 6 and data[end - 1] == 0):
        return False
    steps[0] = step
    for at in range(6, end, 8):
        word = _word(data, at)
        if end - at < 8:
            word &= (np.uint64(1) << np.uint64(8 * (end - at))) - np.uint64(1)
        while word:
            bit = 8 * (at - 6) + np.int64(trailing_zeros(word))
            word &= word - np.uint64(1)
            number = bit - last - 1
            step += (number >> 1) ^ -(number & 1)
            last, found = bit, found + 1
            if found >= len(steps) or step < 0 or step >= _STEPS:
                return False
            steps[found] = step
    return found == len(steps) - 1


@compiled(types.void(_I64, _I64, _I64))
def _sort_runs(steps: Index, order: Index, heights: Index) -> None:
    """Write runs in the order of falling low bits, and how many of them each bit plane covers."""
    heights[:] = 0
    for run in range(len(steps)):
        heights[_LOW_BITS[steps[run]]] += 1
    for bits in range(len(heights) - 2, -1, -1):
        heights[bits] += heights[bits + 1]
    # So far, how many have at least as many bits. Those that have more come before.
    filled = heights.copy()
    for run in range(len(steps)):
        bits = _LOW_BITS[steps[run]]
        order[filled[bits + 1]] = run
        filled[bits + 1] += 1


@compiled(_NUMBER(_BYTES, _NUMBER, _NUMBER, _I64, _I64))
def _find_quotients(data: U8, at: int, length: int, order: Index, begins: Index) -> Any:
    """Write at which bit behind byte ``at`` the quotients of each run begin; return their number."""
    place, found, passed = 0, np.int64(0), length
    begins[order[0]] = 0
    for byte in range(at, len(data), 8):
        word = _word(data, byte)
        after = found + np.int64(population(word))
        while after >= passed and place + 1 < len(order):
            rest = word
            for _ in range(passed - found - 1):
                rest &= rest - np.uint64(1)
            place, passed = place + 1, passed + length
            begins[order[place]] = 8 * (byte - at) + np.int64(trailing_zeros(rest)) + 1
        found = after
    return found


@compiled(types.void(_BYTES, _NUMBER, _I64, _NUMBER, _NUMBER, _OCTETS, written(types.uint32)))
def _read_low_bits(  # noqa: PLR0917 (numba knows arrays, not what holds them)
    data: U8, at: int, planes: Index, begin: int, low_bits: int, octets: U8, numbers: U32
) -> None:
    """Write what the bits from number ``begin`` on of each plane stand for."""
    if low_bits == 0:
        numbers[:] = 0
    for lowest in range(0, low_bits, 8):
        octets[:] = 0
        for bit in range(lowest, min(lowest + 8, low_bits)):
            own = planes[bit] + begin
            for first in range(0, len(octets), 64):
                word = _bits(data, at, own + first)
                set_octets(octets, first, word, np.uint8(1 << (bit - lowest)))
        if lowest == 0:
            for entry in range(len(numbers)):
                numbers[entry] = octets[entry]
        else:
            for entry in range(len(numbers)):
                numbers[entry] |= np.uint32(octets[entry]) << np.uint32(lowest)


@compiled(types.void(_BYTES, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _NUMBER, written(types.uint32)))
def _read_digits(  # noqa: PLR0917 (likewise)
    data: U8, at: int, columns: int, begin: int, size: int, low_bits: int, numbers: U32
) -> None:
    """Set what is above the low bits from ternary digits, those from number ``begin`` on."""
    done, shift = 0, np.uint32(low_bits)
    while done < size:
        place = (begin + done) // columns
        byte = at + begin + done - place * columns
        here = min(size - done, at + columns - byte)
        quotient, above = _PLACES[place], _ABOVE[place]
        for own in range(here):
            high = (np.uint32(data[np.uint64(byte + own)]) * quotient) >> np.uint32(16)
            high -= above * ((high * np.uint32(21846)) >> np.uint32(16))
            numbers[np.uint64(done + own)] |= high << shift
        done += here


@compiled(_NUMBER(written(types.int32), written(types.uint32), *(_NUMBER,) * 4, _I64, _I64))
def _add_up(  # noqa: PLR0917 (likewise)
    ends: I32,
    numbers: U32,
    size: int,
    divisor: int,
    total: Any,
    first: int,
    positions: Index,
    scratch: Index,
) -> Any:
    """Write the positions that ``size`` gaps lead to from ``total`` on; return the last one.

    The quotients up to one of them add up to the zeros before its end.
    """
    for own in range(size):
        scratch[own] = (np.int64(ends[own]) - own) * divisor + own + 1
    for own in range(size):
        total += np.int64(numbers[own])
        positions[np.uint64(first + own)] = total + scratch[own]
    return total + scratch[size - 1]


@compiled(_NUMBER(_BYTES, _I64))
def _read_head(data: U8, steps: Index) -> Any:
    """Write the steps of the divisors of all runs; return where low bits begin, or 0."""
    if len(data) < 2 or data[1] >= _STEPS:
        return 0
    if data[0] == _GOLOMB:
        steps[:] = data[1]
        return 2
    if len(data) < 6:
        return 0
    end = 6 + np.int64(_word(data, 2) & np.uint64(0xFFFFFFFF))
    return end if end <= len(data) and _read_steps(data, end, steps) else 0


@compiled(_YES(_BYTES, _NUMBER, _NUMBER, _NUMBER, _I64))
def _read_golomb(data: U8, k: int, n: int, length: int, positions: Index) -> bool:
    """Write positions; there are as many as gaps, of which those from the k-th on must be 0."""
    gaps = len(positions)
    runs = (gaps + length - 1) // length
    steps, order = np.empty(runs, np.int64), np.empty(runs, np.int64)
    at = _read_head(data, steps)
    if at == 0:
        return False
    heights = np.empty(34, np.int64)
    _sort_runs(steps, order, heights)
    planes, bits = np.empty(32, np.int64), 0
    for bit in range(32):
        planes[bit] = bits
        bits += min(heights[bit + 1] * length, gaps)
    places, digits, ternary = np.empty(runs, np.int64), np.empty(runs, np.int64), 0
    for place in range(runs):
        places[order[place]], digits[order[place]] = place, ternary
        if _FACTORS[steps[order[place]]] == 3:
            ternary = min(ternary + length, gaps)
    digits_at = at + ((bits + 7) >> 3)
    columns = (ternary + 4) // 5
    quotients_at = digits_at + columns
    if quotients_at >= len(data) or data[len(data) - 1] == 0:
        return False
    begins = np.empty(runs, np.int64)
    if _find_quotients(data, quotients_at, length, order, begins) != gaps:
        return False
    ends = np.empty(length + _JUNK, np.int32)
    scratch, numbers = np.empty(length, np.int64), np.empty(length, np.uint32)
    octets = np.empty((length + 63) & ~63, np.uint8)
    total = -1
    for run in range(runs):
        first, step = run * length, steps[run]
        size = min(length, gaps - first)
        low_bits = _LOW_BITS[step]
        _find_ones(data, quotients_at, begins[run], size, ends)
        _read_low_bits(data, at, planes, places[run] * length, low_bits, octets, numbers)
        if _FACTORS[step] == 3:
            _read_digits(data, digits_at, columns, digits[run], size, low_bits, numbers)
        divisor = _FACTORS[step] << low_bits
        total = _add_up(ends, numbers, size, divisor, total, first, positions, scratch)
        if total - (gaps - k) >= n:
            return False
    return bool(total - positions[k - 1] == gaps - k)


def indices(data: U8, k: int, n: int) -> Index | None:  # noqa: D103
    code = data[0]
    if len(data) >= _LONGEST:
        return None
    if code == _BITMAP:
        positions = np.empty(k + _JUNK, dtype=np.int64)
        return positions[:k] if _read_bitmap(data, k, n, positions) else None
    length, gaps = _RUN, k
    if code == _ADAPTIVE:
        runs = -(-k // _RUN)
        length = -(-k // runs)
        gaps = runs * length
    elif code != _GOLOMB:
        return None
    positions = np.empty(gaps, dtype=np.int64)
    return positions[:k] if _read_golomb(data, k, n, length, positions) else None
