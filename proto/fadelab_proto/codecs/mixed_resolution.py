"""Many bits for the few large entries, one bit for all others: mixed-resolution quantisation.

As in the public code of arXiv 2412.10878 (Adaptive quantization resolution and power control for
federated learning over cell-free networks). With threshold lam and b bits, entries of at least
``lam * max|x|`` are *high*: a sign, and the magnitude to the nearest of ``2**b`` levels from 0 to
the largest. All others become plus or minus half of the smallest coded magnitude of a high entry.

Caution: that half is far too large where most entries are close to zero, as in heavy-tailed
updates; the error can then exceed the vector itself (a normalised mean squared error above 1). Look
at the error before trusting a run, and use an error memory.

Payload of one packet (little-endian, bits counted from the lowest)::

    u8   b
    f32  distance of the levels
    f32  magnitude of the entries that are not high
    u32  number of high entries k
    signs of all entries, one bit each
    only if k > 0:
    the levels of the high entries, as fields (:mod:`fadelab_proto.codecs.bit_planes`)
    which entries these are (:mod:`fadelab_proto.codecs.index_sets`)
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, CodecError, Encoding, Index, Segment
from fadelab_proto.codecs.bit_planes import (
    Codes,
    check_bits,
    code_type,
    field_bytes,
    pack_fields,
    plane_bytes,
    split_fields,
    unpack_fields,
)
from fadelab_proto.codecs.grids import MAX_COORDINATES
from fadelab_proto.codecs.index_sets import decode_indices, encode_indices, expected_bits
from fadelab_proto.codecs.minifloats import largest_magnitude

_HEAD = struct.Struct("<BffI")
_BLOCK = 1 << 17
_LARGEST = np.finfo(np.float32).max
_SMALLEST = np.nextafter(np.float32(0), np.float32(1))


@dataclass(frozen=True, slots=True)
class MixedResolution:
    """Entries of at least ``threshold`` times the largest magnitude get ``bits`` bits and a sign.

    Args:
        threshold: lam, above 0 and below 1; 0.05 to 0.4 in the paper.
        bits: b, 1 to 16; 2 to 10 in the paper.

    """

    NUMBER: ClassVar[int] = pb.CODEC_MIXED

    threshold: float
    bits: int

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise CodecError(f"the threshold is {self.threshold}; it must be above 0 and below 1")
        check_bits(self.bits)

    def encode(
        self,
        vector: F32,
        *,
        max_payload_bytes: int,
        generator: np.random.Generator,  # noqa: ARG002
    ) -> Encoding:
        """Return packets of consecutive entries; rounding is to nearest and takes no chance."""
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        resolved = _resolve(vector, threshold=self.threshold, bits=self.bits)
        step = _entries_of_a_packet(len(vector), len(resolved.high), self.bits, max_payload_bytes)
        chunks = tuple(
            chunk
            for first in range(0, len(vector), step)
            for chunk in _chunks(
                vector, resolved, first, min(first + step, len(vector)), limit=max_payload_bytes
            )
        )
        return Encoding(chunks, _nominal_bits(len(vector), len(resolved.high), self.bits))

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Read ``count`` entries; sizes are checked before anything is allocated."""
        if len(payload) < _HEAD.size:
            raise CodecError(f"{len(payload)} payload bytes are too few for mixed resolution")
        bits, distance, low, number = _HEAD.unpack_from(payload)
        check_bits(bits)
        # Comparisons with NaN are false.
        if not (0 <= distance <= _LARGEST and 0 <= low <= _LARGEST / 2):
            raise CodecError(f"{distance} and {low} are not magnitudes of mixed resolution")
        signs_end = _HEAD.size + plane_bytes(count)
        levels_end = signs_end + field_bytes(bits, number)
        if number > count or len(payload) < levels_end:
            raise CodecError(
                f"{len(payload)} payload bytes cannot hold {count} entries, {number} of them high"
            )
        body = np.frombuffer(payload, dtype=np.uint8)
        signs = np.unpackbits(body[_HEAD.size : signs_end], count=count, bitorder="little")
        values = _signed(np.float32(low), signs)
        if number:
            fields = split_fields(body[signs_end:levels_end], bits, number)
            high = decode_indices(memoryview(payload)[levels_end:], k=number, n=count)
            levels = unpack_fields(fields, bits, 0, number)
            values[high] = _magnitudes(levels, distance) * _signed(np.float32(1), signs[high])
        elif len(payload) != levels_end:
            raise CodecError(f"{len(payload) - levels_end} payload bytes are left over")
        # A little more than the last level, for what rounding may have added.
        largest = max(low, distance * (2**bits - 1)) * (1 + 2.0**-20)
        return Segment(first, values, largest=min(largest, float(_LARGEST)))

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return about what a vector of normally distributed entries takes.

        Heavier tails, which real updates have, make fewer entries high.
        """
        high = self._high_of_normal(dimension)
        step = _entries_of_a_packet(dimension, high, self.bits, max_payload_bytes)
        packets = -(-dimension // step)
        entries = -(-dimension // max(1, packets))
        positions = packets * expected_bits(-(-high // packets), entries) if high else 0
        return packets * 8 * _HEAD.size + dimension + self.bits * high + positions

    def nominal_bits(self, dimension: int) -> int:
        """Return about what the formula gives for normally distributed entries.

        That is one bit for each entry, ``b`` more for each high one, and 32.
        """
        return _nominal_bits(dimension, self._high_of_normal(dimension), self.bits)

    def _high_of_normal(self, dimension: int) -> int:
        """Return how many entries are high if the largest one is as large as it mostly is."""
        if dimension == 0:
            return 0
        normal = NormalDist()
        largest = normal.inv_cdf((1 + 0.5 ** (1 / dimension)) / 2)
        return math.ceil(dimension * 2 * normal.cdf(-self.threshold * largest))


@dataclass(frozen=True, slots=True)
class _Resolved:
    """The high entries of a vector, and what the others become."""

    bits: int
    distance: float
    low: float
    high: Index
    levels: Codes


def _nominal_bits(dimension: int, high: int, bits: int) -> int:
    return (dimension - high) + high * (bits + 1) + 32 if dimension else 0


def _resolve(vector: F32, *, threshold: float, bits: int) -> _Resolved:
    largest = largest_magnitude(vector)
    exact = largest / (2**bits - 1)
    distance = np.float32(exact)
    # As a float of Python's, since numpy would compare in single precision.
    if float(distance) < exact:
        # Upwards, so that no level is beyond the last one.
        distance = np.nextafter(distance, np.float32(np.inf))
    high = _at_least(vector, max(np.float32(threshold * largest), _SMALLEST))
    levels = np.rint(np.abs(vector[high]).astype(np.float64) / max(distance, _SMALLEST))
    codes = levels.astype(code_type(bits))
    low = (
        np.float32(0.5) * _magnitudes(codes.min(keepdims=True), float(distance))[0]
        if len(high)
        else 0
    )
    return _Resolved(bits, float(distance), float(low), high, codes)


def _at_least(vector: F32, magnitude: np.float32) -> Index:
    """Return the indices of all entries of that magnitude or more, in blocks fit for the cache."""
    found = (
        np.flatnonzero(np.abs(vector[first : first + _BLOCK]) >= magnitude) + first
        for first in range(0, len(vector), _BLOCK)
    )
    return np.concatenate([np.empty(0, np.int64), *found])


def _magnitudes(levels: Codes, distance: float) -> F32:
    # The distance is rounded upwards, so the last level may be beyond the largest float32.
    exact = np.minimum(levels.astype(np.float64) * distance, float(_LARGEST))
    return exact.astype(np.float32)


def _signed(magnitude: np.float32, negative: NDArray[np.uint8]) -> F32:
    """Return plus or minus a number, which is at most half of float32's largest."""
    values = negative.astype(np.float32)
    values *= -2 * magnitude
    values += magnitude
    return values


def _entries_of_a_packet(dimension: int, high: int, bits: int, limit: int) -> int:
    """Return how many entries fit into a packet where high entries are as dense as on average."""
    room = 8 * (limit - _HEAD.size)
    if room < 8 * (bits + 4):
        raise CodecError(
            f"max_payload_bytes is {limit}; a mixed-resolution packet takes {_HEAD.size + bits + 4}"
        )
    each = 1 + (bits * high + expected_bits(high, dimension)) / dimension if high else 1
    return max(8, min(int(room / each) // 8 * 8, MAX_COORDINATES))


def _chunks(
    vector: F32, resolved: _Resolved, first: int, last: int, *, limit: int
) -> Iterator[Chunk]:
    """Yield one packet, or more where high entries are too dense for one."""
    payload = _write(vector, resolved, first, last)
    if len(payload) <= limit:
        yield Chunk(first, last - first, payload, MixedResolution.NUMBER)
        return
    middle = (first + last) // 2
    yield from _chunks(vector, resolved, first, middle, limit=limit)
    yield from _chunks(vector, resolved, middle, last, limit=limit)


def _write(vector: F32, resolved: _Resolved, first: int, last: int) -> bytes:
    here = slice(*np.searchsorted(resolved.high, [first, last]))
    levels, high = resolved.levels[here], resolved.high[here] - first
    head = _HEAD.pack(resolved.bits, resolved.distance, resolved.low, len(high))
    signs = np.packbits(np.signbit(vector[first:last]), bitorder="little")
    if not len(high):
        return head + signs.tobytes()
    coded = np.empty(field_bytes(resolved.bits, len(levels)), np.uint8)
    fields = split_fields(coded, resolved.bits, len(levels))
    pack_fields(levels, resolved.bits, fields, 0)
    return b"".join((head, signs.data, coded.data, encode_indices(high, last - first)))
