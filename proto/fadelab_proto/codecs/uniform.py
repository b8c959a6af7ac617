"""Entries as levels of a uniform grid, of which packets carry all bits or some planes of bits.

Payload of one packet (little-endian)::

    u8   bits b of each level, 1 to 16
    u8   highest plane h in this packet
    u8   lowest plane l in this packet
    ...  grids (:mod:`fadelab_proto.codecs.grids`), without ``low`` unless h is b - 1
    ...  bits h to l of every level, as fields (:mod:`fadelab_proto.codecs.bit_planes`); those of
         a single plane are that plane

Plane j holds bit j of every level. It contributes ``step * 2^j * (bit - 1/2)``, and the packet with
the top plane contributes ``low + step * (2^b - 1) / 2`` too. So whatever planes of a coordinate
have arrived, their sum is the middle of the levels that are still possible, and with all planes it
is ``low + step * level``: in float32 exactly if one packet holds them all, up to rounding otherwise.
In several packets, entries within a step of float32's largest number may overflow as they are added up.
"""

import struct
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, CodecError, Encoding, Segment
from fadelab_proto.codecs.bit_planes import (
    MAX_BITS,
    U8,
    check_bits,
    field_bytes,
    pack_fields,
    pack_planes,
    plane_bytes,
    split_fields,
    unpack_fields,
)
from fadelab_proto.codecs.grids import (
    Grids,
    Levels,
    blocks,
    largest_magnitudes,
    packet_ranges,
    symmetric_grids,
)
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.rounding import Dither, Rounder

Order = Literal["coordinates", "planes"]

_HEAD = struct.Struct("<BBB")


@dataclass(frozen=True, slots=True)
class PlaneWriter:
    """Cuts levels into packets of this format, for whichever codec made them.

    Args:
        bits: bits of each level, 1 to 16.
        groups: which coordinates share a grid.
        order: ``"coordinates"``: each packet has all planes of its coordinates. ``"planes"``: each
            packet has one plane, and the top planes of all coordinates come first, so that an
            update that is cut off is coarse everywhere instead of missing somewhere.

    """

    bits: int
    groups: Groups
    order: Order

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if self.order not in ("coordinates", "planes"):
            raise CodecError(f'order is "{self.order}"; allowed are "coordinates" and "planes"')

    def write(
        self, dimension: int, grids: Grids, rounder: Rounder, *, max_payload_bytes: int
    ) -> tuple[Chunk, ...]:
        """Return the packets of the vector that ``rounder`` puts on ``grids``."""
        runs = self._plane_runs()
        chunks: list[list[Chunk]] = [[] for _ in runs]
        for first, count in self._ranges(dimension, max_payload_bytes):
            here = grids.within(first, count)
            bodies = self._bodies(first, count, rounder)
            for run, body, finished in zip(runs, bodies, chunks, strict=True):
                payload = b"".join((self._head(here, *run), body.data))
                finished.append(Chunk(first, count, payload, Uniform.NUMBER))
        return tuple(chunk for finished in chunks for chunk in finished)

    def coded_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the exact payload bits of a vector, which depend on its size alone."""
        starts = self.groups.starts(dimension)
        empty = np.zeros(len(starts), dtype=np.float32)
        grids = Grids(starts, empty, empty)
        total = 0
        for first, count in self._ranges(dimension, max_payload_bytes):
            here = grids.within(first, count)
            for highest, lowest in self._plane_runs():
                total += len(self._head(here, highest, lowest))
                total += field_bytes(highest - lowest + 1, count)
        return 8 * total

    def _bodies(self, first: int, count: int, rounder: Rounder) -> list[U8]:
        """Return what follows the grids in each packet of a coordinate range."""
        if self.order == "planes":
            planes = np.empty((self.bits, plane_bytes(count)), dtype=np.uint8)
            for at, end in blocks(count):
                codes = rounder.codes(first + at, first + end)
                pack_planes(codes, self.bits, planes, at)
            return list(planes)
        levels = np.empty(field_bytes(self.bits, count), dtype=np.uint8)
        fields = split_fields(levels, self.bits, count)
        for at, end in blocks(count):
            codes = rounder.codes(first + at, first + end)
            pack_fields(codes, self.bits, fields, at)
        return [levels]

    def _plane_runs(self) -> list[tuple[int, int]]:
        """Return the highest and the lowest plane of each packet of a coordinate range."""
        if self.order == "coordinates":
            return [(self.bits - 1, 0)]
        return [(plane, plane) for plane in reversed(range(self.bits))]

    def _ranges(self, dimension: int, max_payload_bytes: int) -> list[tuple[int, int]]:
        return packet_ranges(
            self.groups,
            dimension,
            head_bytes=_HEAD.size,
            scale_bytes=8,
            bits=self.bits if self.order == "coordinates" else 1,
            limit=max_payload_bytes,
        )

    def _head(self, grids: Grids, highest: int, lowest: int) -> bytes:
        top = highest == self.bits - 1
        return _HEAD.pack(self.bits, highest, lowest) + grids.write(lows=top)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Unbiased stochastic rounding to a grid that is symmetric around 0.

    The scale of a group is its largest magnitude. With one bit the levels are plus and minus that;
    with more bits there are ``2^bits - 1`` levels with an exact 0 in the middle, so that zeros stay
    zeros. Each entry goes to one of the two levels around it with the probabilities that make its
    expectation right; the error is at most a step.

    Args:
        bits: bits of each level, 1 to 16.
        groups: which coordinates share a scale.
        order: which packets come first; see :class:`PlaneWriter`.

    """

    NUMBER: ClassVar[int] = pb.CODEC_UNIFORM

    bits: int
    groups: Groups = field(default_factory=Groups)
    order: Order = "coordinates"

    def __post_init__(self) -> None:
        self._writer()

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Round and write the vector.

        Raises:
            CodecError: if an entry is not finite, a step would be beyond float32 (one bit and
                entries above 1.7e38), the layers do not add up, or packets are too small.

        """
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        starts = self.groups.starts(len(vector))
        largest = largest_magnitudes(vector, starts)
        grids = symmetric_grids(starts, largest, half_levels(self.bits))
        rounder = symmetric_rounder(vector, grids, largest, self.bits, generator)
        chunks = self._writer().write(
            len(vector), grids, rounder, max_payload_bytes=max_payload_bytes
        )
        return Encoding(chunks, self.nominal_bits(len(vector)))

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Read one packet; without the top plane its values refine another packet's."""
        if len(payload) < _HEAD.size:
            raise CodecError(f"{len(payload)} payload bytes are too few for a packet of levels")
        bits, highest, lowest = _HEAD.unpack_from(payload)
        if not (1 <= bits <= MAX_BITS and lowest <= highest < bits):
            raise CodecError(f"planes {highest} to {lowest} of {bits} bits do not exist")
        top = highest == bits - 1
        grids, rest = Grids.read(memoryview(payload)[_HEAD.size :], count, bits=bits, lows=top)
        held = highest - lowest + 1
        if len(rest) != field_bytes(held, count):
            raise CodecError(f"{len(rest)} bytes cannot be {held} planes of {count} coordinates")
        fields = split_fields(np.frombuffer(rest, dtype=np.uint8), held, count)
        unit = 2**lowest
        levels = Levels(
            grids,
            lambda at, end: unpack_fields(fields, held, at, end - at),
            count,
            highest=2**held - 1,
            unit=unit,
            shift=(unit - 1) / 2 if top else (unit - 2 ** (highest + 1)) / 2,
            halves=fields[0] if held == 4 else None,
        )
        return Segment(first, levels, refines=not top, largest=levels.largest)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the exact payload bits, which depend on the sizes alone."""
        return self._writer().coded_bits(dimension, max_payload_bytes=max_payload_bytes)

    def nominal_bits(self, dimension: int) -> int:
        """Return ``bits`` for each entry, and 64 for the two numbers of each group's grid."""
        return self.bits * dimension + 64 * len(self.groups.starts(dimension))

    def _writer(self) -> PlaneWriter:
        return PlaneWriter(self.bits, self.groups, self.order)


def half_levels(bits: int) -> float:
    """Return how many steps a symmetric grid has on either side of 0."""
    return 0.5 if bits == 1 else 2.0 ** (bits - 1) - 1


def symmetric_rounder(
    vector: F32, grids: Grids, largest: F32, bits: int, generator: np.random.Generator
) -> Rounder:
    """Return what rounds a vector without bias to ``half_levels`` on either side of 0."""
    half = half_levels(bits)
    dither = Dither(generator, len(vector))
    return Rounder(vector, grids, bits=bits, zero=half, reach=largest, most=half, dither=dither)
