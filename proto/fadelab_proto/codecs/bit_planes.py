"""Integers of 1 to 16 bits as bytes, in two layouts.

*Planes*: bit j of all codes, eight to the byte, and so for every j. Any run of planes can be sent
and used without the others, which is what makes an update that is cut off useful.

*Fields*: the low bits of all codes in whole bytes or half bytes as far as possible, the few bits
above in planes. A code of 13 bits is a field of 8, one of 4 and one of 1. There is less to do per
code, but only all fields together are of use.

The first code of eight is in the lowest bit, that of two in the lower half byte.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs import kernels
from fadelab_proto.codecs.base import CodecError

MAX_BITS = 16

U8 = NDArray[np.uint8]
Codes = NDArray[np.uint8 | np.uint16]
"""Of 8 bits each if that is enough, so that less memory is moved."""


def check_bits(bits: int, *, least: int = 1) -> None:
    """Refuse codes of a length that these layouts do not have.

    Raises:
        CodecError: if ``bits`` is not in ``least`` .. 16.

    """
    if not least <= bits <= MAX_BITS:
        raise CodecError(f"bits is {bits}; allowed are {least} to {MAX_BITS}")


def code_type(bits: int) -> type[np.uint8] | type[np.uint16]:
    """Return the type of an array of codes of that many bits."""
    return np.uint8 if bits <= 8 else np.uint16


def plane_bytes(count: int) -> int:
    """Return the size of one plane of ``count`` codes."""
    return (count + 7) // 8


def pack_planes(codes: Codes, bits: int, planes: U8, at: int) -> None:
    """Write the planes of ``codes`` into the rows of ``planes``, the highest first.

    Args:
        codes: codes number ``at`` and following.
        bits: bits of each code, the number of rows.
        planes: shape ``(bits, plane_bytes(all codes))``.
        at: a multiple of 8.

    """
    octets = _octets(codes)
    for row, bit in enumerate(reversed(range(bits))):
        _pack_bit(octets[bit // 8], bit % 8, planes[row], at)


def unpack_planes(planes: U8, at: int, count: int) -> Codes:
    """Return ``count`` codes from number ``at``, a multiple of 8, on; the inverse of pack_planes."""
    codes: Codes = _unpack_bit(planes[0], at, count)
    if len(planes) > 8:
        codes = codes.astype(np.uint16)
    for plane in planes[1:]:
        np.add(codes, codes, out=codes)
        np.bitwise_or(codes, _unpack_bit(plane, at, count), out=codes)
    return codes


def field_bytes(bits: int, count: int) -> int:
    """Return the size of all fields of ``count`` codes."""
    return sum(_field_size(width, count) for _, width in _fields(bits))


def split_fields(buffer: U8, bits: int, count: int) -> list[U8]:
    """Return the part of each field of ``count`` codes in a buffer of ``field_bytes``."""
    parts = []
    for _, width in _fields(bits):
        size = _field_size(width, count)
        parts.append(buffer[:size])
        buffer = buffer[size:]
    return parts


def pack_fields(codes: Codes, bits: int, fields: Sequence[U8], at: int) -> None:
    """Write codes number ``at``, a multiple of 8, and following into their fields."""
    octets = _octets(codes)
    for (shift, width), field in zip(_fields(bits), fields, strict=True):
        octet = octets[shift // 8]
        if width == 8:
            field[at : at + len(codes)] = octet
        elif width == 4:
            _pack_halves(octet if bits % 8 == 4 else octet & np.uint8(15), field, at)
        else:
            _pack_bit(octet, shift % 8, field, at)


def unpack_fields(fields: Sequence[U8], bits: int, at: int, count: int) -> Codes:
    """Return ``count`` codes from number ``at``, a multiple of 8, on; the inverse of pack_fields."""
    codes: Codes | None = None
    for (shift, width), field in zip(_fields(bits), fields, strict=True):
        if width == 8:
            part = field[at : at + count]
        elif width == 4:
            part = kernels.in_use.half_bytes(field[at // 2 :], count)
        else:
            part = _unpack_bit(field, at, count)
        if codes is None:
            codes = part if bits <= 8 else part.astype(np.uint16)
        else:
            # Multiplied, since numpy shifts bytes one at a time.
            raised = np.multiply(part, codes.dtype.type(1 << shift), dtype=codes.dtype)
            np.bitwise_or(codes, raised, out=codes)
    assert codes is not None
    return codes


@cache
def _fields(bits: int) -> tuple[tuple[int, int], ...]:
    """Return the lowest bit and the number of bits of each field."""
    fields, shift = [], 0
    while shift < bits:
        width = next(width for width in (8, 4, 1) if width <= bits - shift)
        fields.append((shift, width))
        shift += width
    return tuple(fields)


def _field_size(width: int, count: int) -> int:
    return (count * width + 7) // 8


def _octets(codes: Codes) -> tuple[U8, ...]:
    """Return the low, and if there are any, the high 8 bits of each code."""
    if codes.dtype == np.uint8:
        return (codes.view(np.uint8),)
    return codes.astype(np.uint8), (codes >> 8).astype(np.uint8)


def _pack_bit(octets: U8, bit: int, plane: U8, at: int) -> None:
    packed = np.packbits(octets & np.uint8(1 << bit), bitorder="little")
    plane[at // 8 : at // 8 + len(packed)] = packed


def _unpack_bit(plane: U8, at: int, count: int) -> U8:
    packed = plane[at // 8 : at // 8 + plane_bytes(count)]
    return np.unpackbits(packed, count=count, bitorder="little")


def _pack_halves(octets: U8, field: U8, at: int) -> None:
    if len(octets) % 2:
        octets = np.append(octets, np.uint8(0))
    pairs = octets.view("<u2")
    packed = ((pairs >> 4) | pairs).astype(np.uint8)
    field[at // 2 : at // 2 + len(packed)] = packed
