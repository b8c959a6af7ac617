"""Codes that are mostly near one of them, rearranged so that a compressor finds what there is to gain.

A code's distance from the one in the middle is written plane by plane, the highest bit first; then,
for each code that is not the middle one, on which side of it it lies. High planes are nearly empty:
they become sets of indices, which come close to their entropy. What is dense is left as bitmaps, to be
compressed: eight codes to the byte, it has the statistics that a compressor of bytes can use.

Sets of one packet (little-endian), for each plane from the highest::

    u32  codes with that bit k
    only if 0 < 8 k <= codes:
    u32  bytes of the set
    the set (:mod:`fadelab_proto.codecs.index_sets`)

Bitmaps are those planes with ``8 k > codes``, in the same order, and the sides (1 for below) unless the
middle one is code 0. Each takes whole bytes, the first code in the lowest bit.
"""

import struct
from dataclasses import dataclass

import numpy as np

from fadelab_proto.codecs.base import CodecError
from fadelab_proto.codecs.bit_planes import U8, Codes, code_type, plane_bytes
from fadelab_proto.codecs.index_sets import decode_indices, encode_indices

_NUMBER = struct.Struct("<I")
_SPARSE = 8
"""Planes with a bit in so many codes at most are sets."""


def arrange(codes: Codes, bits: int, *, middle: int) -> tuple[bytes, list[bytes]]:
    """Return the sets and the bitmaps of codes of ``bits`` bits around the code ``middle``."""
    below = np.less(codes, codes.dtype.type(middle))
    distances = np.subtract(codes, codes.dtype.type(middle))
    # All bits are inverted and 1 is added where the difference wrapped around.
    inverted = np.multiply(below.view(np.uint8), np.iinfo(codes.dtype).max, dtype=codes.dtype)
    np.bitwise_xor(distances, inverted, out=distances)
    np.subtract(distances, inverted, out=distances)
    sets, bitmaps = [], []
    for bit in reversed(range(bits)):
        plane = np.bitwise_and(distances, codes.dtype.type(1 << bit)) != 0
        ones = int(np.count_nonzero(plane))
        sets.append(_NUMBER.pack(ones))
        if _SPARSE * ones > len(codes):
            bitmaps.append(np.packbits(plane, bitorder="little").tobytes())
        elif ones:
            indices = encode_indices(np.flatnonzero(plane), len(codes))
            sets += (_NUMBER.pack(len(indices)), indices)
    if middle:
        sides = np.compress(distances != 0, below)
        bitmaps.append(np.packbits(sides, bitorder="little").tobytes())
    return b"".join(sets), bitmaps


def restore(sets: U8, bitmaps: U8, count: int, bits: int, *, middle: int) -> Codes:
    """Return the codes again.

    Args:
        sets: what :func:`arrange` returned.
        bitmaps: what it returned besides, one after the other.
        count: number of codes; nothing is allocated but in proportion to it.
        bits: bits of each code.
        middle: the code from which distances count.

    Raises:
        CodecError: if these are no such codes.

    """
    planes, sparse = _Reader(bitmaps), _Reader(sets)
    codes: Codes = np.zeros(count, dtype=code_type(bits))
    for bit in reversed(range(bits)):
        value = codes.dtype.type(1 << bit)
        ones = sparse.number()
        if ones > count:
            raise CodecError(f"the payload names {ones} of {count} codes")
        if _SPARSE * ones > count:
            plane = _unpacked(planes, count)
            np.bitwise_or(codes, np.multiply(plane, value, dtype=codes.dtype), out=codes)
        elif ones:
            indices = decode_indices(sparse.take(sparse.number()).data, k=ones, n=count)
            codes[indices] |= value
    if middle:
        distant = np.flatnonzero(codes != 0)
        below = np.compress(_unpacked(planes, len(distant)).view(np.bool_), distant)
        codes[below] = np.negative(codes[below])
        np.add(codes, codes.dtype.type(middle), out=codes)
    if len(sparse.data) or len(planes.data):
        raise CodecError("the payload holds more bytes than its codes take")
    if int(codes.max(initial=0)) >> bits:
        raise CodecError(f"the payload holds a code of more than {bits} bits")
    return codes


@dataclass(slots=True)
class _Reader:
    """Bytes that are taken from the front, never more than there are."""

    data: U8

    def take(self, size: int) -> U8:
        if size > len(self.data):
            raise CodecError("the payload ends within its codes")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def number(self) -> int:
        return int(_NUMBER.unpack(self.take(_NUMBER.size).data)[0])


def _unpacked(planes: _Reader, count: int) -> U8:
    return np.unpackbits(planes.take(plane_bytes(count)), count=count, bitorder="little")
