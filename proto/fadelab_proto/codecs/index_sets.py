"""Compact codes for a sorted set of k indices out of n.

The first byte says which code follows; the smallest is used (integers are little-endian, bits are
counted from the lowest):

1. *Bitmap*: n bits.
2. *Golomb* (S. W. Golomb, Run-length encodings, 1966): one divisor for all gaps between indices.
3. *Adaptive Golomb*: a divisor for each of ``ceil(k / 128)`` runs of equal length, the last one
   filled up with zeros. The supports of gradients are far from uniform: whole filters are silent,
   others are full.
4. *Literal*: ``ceil(log2 n)`` bits for each index, as papers count them; only on request.

A gap g with divisor d is the remainder g mod d and the quotient g // d in unary (that many zeros
and a one). Divisors are 1, 2, 3, 4, 6, 8, 12, ...: powers of two, and three times these, so that a
remainder is j low bits, written as bit planes, and with the factor of three a ternary digit, five
of which make a byte. Layout of 2 and 3::

    u8   step of the first divisor in this ladder
    only 3:
    u32  bytes of the next field
    the differences between the steps of following divisors, mapped to 0, 1, 2, ... in the order
    0, -1, 1, -2, ... and written in unary
    both, with the runs in the order of falling j:
    low bits: bit 0 of all gaps that have it, then bit 1, ...
    ternary digits of the gaps that have one, the first fifth of them in the highest place
    quotients
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs import kernels
from fadelab_proto.codecs.base import CodecError, Index
from fadelab_proto.codecs.plain_kernels import (
    GolombRuns,
    golomb_positions,
    ones,
    read_low_bits,
    rows_of_planes,
)

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]

RUN = 128
"""Most gaps that share a divisor of their own."""
_STEPS = 62
LOW_BITS = np.array([0, *((i + 1) // 2 if i % 2 else i // 2 - 1 for i in range(1, _STEPS))])
FACTORS = np.array([1, *(1 if i % 2 else 3 for i in range(1, _STEPS))])
_DIVISOR = FACTORS << LOW_BITS
# Mean gap up to which a divisor is better than the next; 1 / ln 2 in the limit (R. Gallager and
# D. van Voorhis 1975), and within 1.2 % of the exact one for small divisors.
_UP_TO_MEAN = 1.45 * np.sqrt(_DIVISOR[:-1] * _DIVISOR[1:]) - 0.45


class IndexCode(IntEnum):
    """The first byte of a set."""

    BITMAP = 1
    GOLOMB = 2
    ADAPTIVE = 3
    LITERAL = 4


def encode_indices(indices: Index, n: int) -> bytes:
    """Encode strictly increasing ``indices`` (shape ``(k,)``, k >= 1), all in ``0..n-1``."""
    steps, bits = _choose_steps(indices)
    if bits < n:
        code = IndexCode.GOLOMB if len(steps) == 1 else IndexCode.ADAPTIVE
        coded = bytes([code]) + _write_golomb(_gaps(indices), steps)
        if len(coded) <= _bytes(n):
            return coded
    bitmap = np.zeros(n, dtype=np.bool_)
    bitmap[indices] = True
    return bytes([IndexCode.BITMAP]) + _pack(bitmap)


def encode_literally(indices: Index, n: int) -> bytes:
    """Encode ``indices`` as ``ceil(log2 n)`` bits each, the form that papers count."""
    width = np.array([(n - 1).bit_length()])
    planes = _write_low_bits(indices.astype(np.uint32)[np.newaxis], width)
    return bytes([IndexCode.LITERAL]) + planes


def expected_bits(k: int, n: int) -> int:
    """Return about what ``encode_indices`` takes if all sets of ``k`` indices are equally likely.

    It grows with k. The sets that occur in training are rarely less regular than that.
    """
    mean = (n - k) / k
    middle = int(np.searchsorted(_UP_TO_MEAN, mean))
    nearby = range(max(0, middle - 1), min(_STEPS, middle + 2))
    golomb = k * min(float(_expected_golomb_bits(step, mean)) for step in nearby)
    return 8 * min(1 + _bytes(n), 2 + math.ceil(golomb / 8))


def literal_bits(k: int, n: int) -> int:
    """Return the bits that ``encode_literally`` takes."""
    return 8 * (1 + _bytes(k * (n - 1).bit_length()))


def decode_indices(data: bytes | memoryview, *, k: int, n: int) -> Index:
    """Decode ``k`` indices below ``n``, whichever code they are in.

    Raises:
        CodecError: if ``data`` does not hold exactly k strictly increasing indices below n.

    """
    # In every code, an index takes at least a bit of what follows the first byte or of that byte.
    if not 1 <= k <= n or k > 8 * len(data):
        raise CodecError(f"{len(data)} bytes cannot code {k} indices out of {n}")
    octets = np.frombuffer(data, dtype=np.uint8)
    compiled = kernels.in_use.indices(octets, k, n)
    return _decode(octets, k, n) if compiled is None else compiled


def _decode(octets: U8, k: int, n: int) -> Index:
    reader = _Reader(octets)
    code = int(reader.take(1)[0])
    increasing = True
    if code == IndexCode.BITMAP:
        indices = _ones(reader.take(_bytes(n)), k)
    elif code == IndexCode.LITERAL:
        width = np.array([(n - 1).bit_length()])
        planes = reader.take(_bytes(k * int(width[0])))
        indices = read_low_bits(planes, (1, k), width)[0].astype(np.int64)
        # In the other codes they cannot but increase.
        increasing = bool((indices[1:] > indices[:-1]).all())
    elif code in (IndexCode.GOLOMB, IndexCode.ADAPTIVE):
        indices = _read_golomb(reader, k, adaptive=code == IndexCode.ADAPTIVE)
    else:
        raise CodecError(f"index code {code} is unknown")
    if len(reader.data) or not increasing or indices[-1] >= n:
        raise CodecError(f"the payload does not hold {k} increasing indices below {n}")
    return indices


@dataclass(slots=True)
class _Reader:
    """Bytes that are taken from the front, never more than there are."""

    data: U8

    def take(self, size: int) -> U8:
        if size > len(self.data):
            raise CodecError("the payload ends within its indices")
        taken, self.data = self.data[:size], self.data[size:]
        return taken


def _gaps(indices: Index) -> U32:
    """Return how many indices are left out before each one."""
    positions = indices.astype(np.uint32)
    gaps = positions.copy()
    gaps[1:] -= positions[:-1]
    gaps[1:] -= np.uint32(1)
    return gaps


def _choose_steps(indices: Index) -> tuple[Index, float]:
    """Return one step of the ladder for all gaps, or one for each run if this takes fewer bits.

    And how many bits, if the gaps within a run are geometrically distributed.
    """
    k = len(indices)
    mean = np.array([(indices[-1] + 1 - k) / k])
    step = np.searchsorted(_UP_TO_MEAN, mean)
    bits = k * float(_expected_golomb_bits(step, mean)[0])
    if k < 2 * RUN:
        return step, bits
    runs = -(-k // RUN)
    ends = np.minimum(np.arange(1, runs + 1) * -(-k // runs), k)
    sizes = np.diff(ends, prepend=0)
    means = np.diff(indices[ends - 1], prepend=-1) / sizes - 1
    steps = np.searchsorted(_UP_TO_MEAN, means)
    adaptive_bits = float((sizes * _expected_golomb_bits(steps, means)).sum())
    adaptive_bits += 32 + int((_fold(np.diff(steps)) + 1).sum())
    return (steps, adaptive_bits) if adaptive_bits < bits else (step, bits)


def _expected_golomb_bits(step: Index | int, mean: NDArray[np.float64] | float) -> Any:
    """Return the mean bits of gaps that are geometrically distributed with this mean."""
    passed = (mean / (1 + mean)) ** _DIVISOR[step]
    return 1 + passed / (1 - passed) + LOW_BITS[step] + 1.6 * (FACTORS[step] == 3)


def _write_golomb(gaps: U32, steps: Index) -> bytes:
    parts = [bytes([steps[0]])]
    if len(steps) > 1:
        differences = _write_unary(_fold(np.diff(steps)))
        parts += [len(differences).to_bytes(4, "little"), differences]
    order = _order(steps)
    steps = steps[order]
    runs = _runs(gaps, len(steps))[order]
    low_bits = LOW_BITS[steps]
    parts.append(_write_low_bits(runs, low_bits))
    quotients = runs >> low_bits[:, np.newaxis].astype(np.uint32)
    ternary = np.flatnonzero(FACTORS[steps] == 3)
    if len(ternary):
        high = quotients[ternary]
        thirds = high // np.uint32(3)
        parts.append(_write_digits((high - np.uint32(3) * thirds).astype(np.uint8).ravel()))
        quotients[ternary] = thirds
    parts.append(_write_unary(quotients.ravel()))
    return b"".join(parts)


def _read_golomb(reader: _Reader, k: int, *, adaptive: bool) -> Index:
    steps = reader.take(1).astype(np.int64)
    if adaptive:
        size = int.from_bytes(reader.take(4).tobytes(), "little")
        differences = _read_unary(reader.take(size), -(-k // RUN) - 1)
        steps = np.cumsum(np.concatenate((steps, _unfold(differences))))
    if steps.min() < 0 or steps.max() >= _STEPS:
        raise CodecError("the payload names a divisor that does not exist")
    order = _order(steps)
    steps = steps[order]
    length = -(-k // len(steps))
    low_bits, ternary = LOW_BITS[steps], FACTORS[steps] == 3
    runs = GolombRuns(
        planes=reader.take(_bytes(int(low_bits.sum()) * length)),
        digits=reader.take(-(-int(np.count_nonzero(ternary)) * length // 5)),
        quotients=_without_zeros(reader.take(len(reader.data))),
        low_bits=low_bits,
        ternary=ternary,
        order=order,
        length=length,
    )
    positions = golomb_positions(runs)
    if positions is None:
        raise CodecError(f"the payload does not hold {k} indices")
    # What fills the last run up are gaps of 0.
    if positions[-1] - positions[k - 1] != len(positions) - k:
        raise CodecError(f"the payload holds more than {k} indices")
    return positions[:k]


def _runs(gaps: U32, number: int) -> U32:
    """Divide ``gaps`` into runs of equal length, with a few zeros at the end."""
    length = -(-len(gaps) // number)
    runs = np.zeros(number * length, dtype=np.uint32)
    runs[: len(gaps)] = gaps
    return runs.reshape(number, length)


def _order(steps: Index) -> Index:
    """Return the order of falling low bits, in which each bit plane covers the first runs."""
    # Short numbers are sorted by counting.
    return np.argsort(-LOW_BITS[steps].astype(np.int8), kind="stable")


def _fold(differences: Index) -> Index:
    """Map 0, -1, 1, -2, ... to 0, 1, 2, 3, ..."""
    return (differences << 1) ^ (differences >> 63)


def _unfold(numbers: Index) -> Index:
    return (numbers >> 1) ^ -(numbers & 1)


def _write_unary(numbers: U32 | Index) -> bytes:
    ends = numbers.astype(np.int64)
    ends += 1
    np.cumsum(ends, out=ends)
    bits = np.zeros(int(ends[-1]) + 1, dtype=np.bool_)
    bits[ends] = True
    return _pack(bits[1:])


def _read_unary(data: U8, size: int) -> Index:
    ends = _ones(_without_zeros(data), size)
    numbers = ends.copy()
    numbers[1:] -= ends[:-1] + 1
    return numbers


def _without_zeros(data: U8) -> U8:
    if len(data) and not data[-1]:
        raise CodecError("the payload holds more bytes than its indices take")
    return data


def _write_low_bits(runs: U32, low_bits: Index) -> bytes:
    planes = []
    for bit, rows in enumerate(rows_of_planes(low_bits)):
        if bit % 8 == 0:
            octets = (runs[:rows] >> np.uint32(bit)).astype(np.uint8)
        planes.append((octets[:rows] & (1 << bit % 8)).ravel())
    return _pack(np.concatenate(planes)) if planes else b""


def _write_digits(digits: U8) -> bytes:
    columns = -(-len(digits) // 5)
    padded = np.zeros(5 * columns, dtype=np.uint8)
    padded[: len(digits)] = digits
    octets = np.zeros(columns, dtype=np.uint8)
    for row in padded.reshape(5, columns):
        octets *= 3
        octets += row
    return octets.tobytes()


def _bytes(bits: int) -> int:
    return (bits + 7) // 8


def _pack(bits: NDArray[np.bool_] | U8) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()


def _ones(data: U8, size: int) -> Index:
    """Return the positions of the bits that are set; there must be ``size``."""
    positions = ones(data, size)
    if positions is None:
        raise CodecError(f"the payload does not hold {size} indices")
    return positions
