"""Signs and magnitudes in packets of their own, so that signs can travel on a better link.

Yue, Yao, Xu, Yang, Karagiannidis and Niyato, "SP-FL", arXiv 2603.10763: a lost magnitude can be
replaced by a guess, a lost sign cannot.

Payload of a packet of signs: one bit for each coordinate, set for numbers below 0, the first of
eight in the lowest bit.

Payload of a packet of magnitudes (little-endian)::

    u8   bits b of each level, 1 to 16
    ...  grids (:mod:`fadelab_proto.codecs.grids`)
    ...  levels as fields (:mod:`fadelab_proto.codecs.bit_planes`)
"""

import struct
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import (
    F32,
    F64,
    Chunk,
    CodecError,
    Encoding,
    Part,
    Segment,
    check_finite,
)
from fadelab_proto.codecs.bit_planes import (
    MAX_BITS,
    U8,
    check_bits,
    field_bytes,
    pack_fields,
    plane_bytes,
    split_fields,
    unpack_fields,
)
from fadelab_proto.codecs.grids import (
    BLOCK,
    MAX_COORDINATES,
    Grids,
    Levels,
    blocks,
    grids_between,
    packet_ranges,
    smallest_and_largest,
)
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.rounding import Dither, Rounder

_HEAD = struct.Struct("<B")


class Signs:
    """The format of packets of signs."""

    NUMBER: ClassVar[int] = pb.CODEC_SIGN

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Return 1 or -1 for each coordinate."""
        packed = _sign_bits(payload, count)
        values = np.empty(count, dtype=np.float32)
        for at, end in blocks(count):
            np.copyto(values[at:end], _plus_minus(packed, at, end))
        return Segment(first, values, part=Part.SIGNS, largest=1.0)

    @staticmethod
    def join(payload: bytes | memoryview, moduli: F32, *, count: int, skip: int) -> None:
        """Give magnitudes their signs in place, without decoding the signs as a whole.

        Args:
            payload: a packet of the signs of ``count`` coordinates.
            moduli: magnitudes of consecutive ones of these coordinates, contiguous; changed.
            count: number of coordinates that the packet of signs covers.
            skip: how many coordinates of that packet lie before the first magnitude.

        Raises:
            CodecError: if the payload is no packet of signs of these coordinates.

        """
        packed = _sign_bits(payload, count)
        if not 0 <= skip <= skip + len(moduli) <= count:
            raise CodecError(
                f"signs of {count} coordinates cannot cover {len(moduli)} after the first {skip}"
            )
        scratch = np.empty(min(BLOCK, len(moduli)), dtype=np.float32)
        for at, end in blocks(len(moduli)):
            signs, block = scratch[: end - at], moduli[at:end]
            np.copyto(signs, _plus_minus(packed, skip + at, skip + end))
            np.multiply(block, signs, out=block)


class Moduli:
    """The format of packets of magnitudes."""

    NUMBER: ClassVar[int] = pb.CODEC_MODULUS

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Return ``low + step * level`` for each coordinate."""
        levels = _read_moduli(payload, count)
        return Segment(first, levels.values(), part=Part.MODULI, largest=levels.largest)

    @staticmethod
    def accumulate(
        payload: bytes | memoryview,
        vector: F32 | F64,
        weight: float,
        *,
        first: int,
        count: int,
        signs: U8,
    ) -> None:
        """Decode one packet, give it its signs, and add it ``weight`` times to ``vector`` in place.

        Args:
            payload: the packet's payload.
            vector: what the entries are added to, in its precision.
            weight: what the entries are multiplied by.
            first: first coordinate that the packet covers.
            count: number of coordinates that it covers.
            signs: the signs of the whole vector, eight to the byte as in packets of signs.

        Raises:
            CodecError: if the payload is no packet of magnitudes, or the signs end before it does.

        """
        if len(signs) < plane_bytes(first + count):
            raise CodecError(
                f"{len(signs)} bytes of signs end before coordinate {first + count - 1}"
            )
        _read_moduli(payload, count).add_signed_to(
            vector[first : first + count],
            weight,
            lambda at, end: _plus_minus(signs, first + at, first + end),
        )


@dataclass(frozen=True, slots=True)
class SignOnly:
    """One bit for each entry: its sign, that of 0 being plus."""

    def encode(
        self,
        vector: F32,
        *,
        max_payload_bytes: int,
        generator: np.random.Generator,  # noqa: ARG002
    ) -> Encoding:
        """Write the signs of the vector.

        Raises:
            CodecError: if an entry is not finite.

        """
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        check_finite(vector)
        signs = np.empty(plane_bytes(len(vector)), dtype=np.uint8)
        for first, last in blocks(len(vector)):
            _pack_signs(vector, first, last, signs)
        chunks = _sign_chunks(signs, len(vector), max_payload_bytes)
        return Encoding(chunks, self.nominal_bits(len(vector)))

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the exact payload bits, which depend on the sizes alone."""
        return 8 * sum(
            plane_bytes(count) for _, count in _sign_ranges(dimension, max_payload_bytes)
        )

    def nominal_bits(self, dimension: int) -> int:
        """Return ``dimension``."""
        return dimension


@dataclass(frozen=True, slots=True)
class SignModulus:
    """Signs, and magnitudes rounded without bias to a grid between the smallest and the largest.

    All packets of signs come before those of magnitudes. A magnitude goes to one of the two levels
    around it with the probabilities that make its expectation right; the error is at most a step,
    which is the range of the group's magnitudes divided by ``2^bits - 1``.

    Args:
        bits: bits of each magnitude, 1 to 16.
        groups: which coordinates share smallest and largest magnitude.

    """

    bits: int
    groups: Groups = field(default_factory=Groups)

    def __post_init__(self) -> None:
        check_bits(self.bits)

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Round and write the vector.

        Raises:
            CodecError: if an entry is not finite, the layers do not add up, or packets are too
                small.

        """
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        starts = self.groups.starts(len(vector))
        smallest, largest = smallest_and_largest(vector, starts)
        most = 2**self.bits - 1
        grids = grids_between(starts, smallest, largest, most)
        rounder = Rounder(
            vector,
            grids,
            bits=self.bits,
            zero=0,
            reach=largest - grids.lows,
            most=most,
            dither=Dither(generator, len(vector)),
            moduli=True,
        )
        signs = np.empty(plane_bytes(len(vector)), dtype=np.uint8)
        moduli = []
        for first, count in self._ranges(len(vector), max_payload_bytes):
            levels = np.empty(field_bytes(self.bits, count), dtype=np.uint8)
            fields = split_fields(levels, self.bits, count)
            for at, end in blocks(count):
                _pack_signs(vector, first + at, first + end, signs)
                pack_fields(rounder.codes(first + at, first + end), self.bits, fields, at)
            head = _HEAD.pack(self.bits) + grids.within(first, count).write()
            payload = b"".join((head, levels.data))
            moduli.append(Chunk(first, count, payload, Moduli.NUMBER, pb.PACKET_CLASS_MODULUS))
        chunks = (*_sign_chunks(signs, len(vector), max_payload_bytes), *moduli)
        return Encoding(chunks, self.nominal_bits(len(vector)))

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the exact payload bits, which depend on the sizes alone."""
        starts = self.groups.starts(dimension)
        empty = np.zeros(len(starts), dtype=np.float32)
        grids = Grids(starts, empty, empty)
        moduli = 8 * sum(
            _HEAD.size + len(grids.within(first, count).write()) + field_bytes(self.bits, count)
            for first, count in self._ranges(dimension, max_payload_bytes)
        )
        return moduli + SignOnly().estimate_bits(dimension, max_payload_bytes=max_payload_bytes)

    def nominal_bits(self, dimension: int) -> int:
        """Return 1 and ``bits`` for each entry, and 64 for the two numbers of each group."""
        return (1 + self.bits) * dimension + 64 * len(self.groups.starts(dimension))

    def _ranges(self, dimension: int, max_payload_bytes: int) -> list[tuple[int, int]]:
        return packet_ranges(
            self.groups,
            dimension,
            head_bytes=_HEAD.size,
            scale_bytes=8,
            bits=self.bits,
            limit=max_payload_bytes,
        )


def _read_moduli(payload: bytes | memoryview, count: int) -> Levels:
    if len(payload) < _HEAD.size:
        raise CodecError("an empty payload is no packet of magnitudes")
    (bits,) = _HEAD.unpack_from(payload)
    if not 1 <= bits <= MAX_BITS:
        raise CodecError(f"a level of {bits} bits does not exist; 1 to {MAX_BITS}")
    grids, rest = Grids.read(memoryview(payload)[_HEAD.size :], count, bits=bits)
    if (grids.lows < 0).any():
        raise CodecError("the payload holds a magnitude below 0")
    if len(rest) != field_bytes(bits, count):
        raise CodecError(f"{len(rest)} bytes cannot be {count} levels of {bits} bits")
    fields = split_fields(np.frombuffer(rest, dtype=np.uint8), bits, count)
    return Levels(
        grids,
        lambda at, end: unpack_fields(fields, bits, at, end - at),
        count,
        highest=2**bits - 1,
    )


def _sign_ranges(dimension: int, max_payload_bytes: int) -> list[tuple[int, int]]:
    if max_payload_bytes < 1:
        raise CodecError(f"max_payload_bytes is {max_payload_bytes}; eight signs take 1")
    step = min(8 * max_payload_bytes, MAX_COORDINATES)
    return [(first, min(step, dimension - first)) for first in range(0, dimension, step)]


def _pack_signs(vector: F32, first: int, last: int, signs: U8) -> None:
    """Write the signs of coordinates ``first``, a multiple of 8, to ``last - 1``."""
    negative = np.less(vector[first:last], np.float32(0))
    signs[first // 8 : plane_bytes(last)] = np.packbits(negative, bitorder="little")


def _sign_chunks(signs: U8, dimension: int, max_payload_bytes: int) -> tuple[Chunk, ...]:
    return tuple(
        Chunk(
            first,
            count,
            signs[first // 8 : plane_bytes(first + count)].tobytes(),
            Signs.NUMBER,
            pb.PACKET_CLASS_SIGN,
        )
        for first, count in _sign_ranges(dimension, max_payload_bytes)
    )


def _sign_bits(payload: bytes | memoryview, count: int) -> U8:
    if len(payload) != plane_bytes(count):
        raise CodecError(f"{len(payload)} payload bytes cannot be the signs of {count} coordinates")
    return np.frombuffer(payload, dtype=np.uint8)


def _plus_minus(packed: U8, first: int, last: int) -> NDArray[np.int8]:
    """Return 1 or -1 for each of the coordinates ``first`` .. ``last - 1``."""
    skip = first % 8
    run = packed[first // 8 : plane_bytes(last)]
    bits = np.unpackbits(run, count=skip + last - first, bitorder="little")[skip:]
    # As bytes, which costs a quarter of doing it as numbers: 1 + 254 is -1.
    np.multiply(bits, np.uint8(254), out=bits)
    np.add(bits, np.uint8(1), out=bits)
    return bits.view(np.int8)
