"""CRC-32C, the checksum of everything that is sent or stored."""

from collections.abc import Iterable
from typing import Any

import google_crc32c
import numpy as np

_COPIED_BYTES = 16 << 10


def checksum(pieces: Iterable[bytes | memoryview]) -> int:
    """Return the CRC-32C (RFC 3720, section 12.1) of bytes that follow one another."""
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, _summable(piece))
    return crc


def _summable(piece: bytes | memoryview) -> Any:
    """Return the same bytes as google_crc32c takes them.

    That is not a memoryview, which has to be released after use, but an array that views it: large
    pieces need not be copied. Making one takes longer than copying a few kilobytes, though, and
    the package's Python form, for machines without a compiled one, takes bytes alone.
    """
    if isinstance(piece, bytes):
        return piece
    if len(piece) < _COPIED_BYTES or google_crc32c.implementation != "c":
        return bytes(piece)
    return np.frombuffer(piece, dtype=np.uint8)
