"""Every entry as a little-endian float16, in coordinate order."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import kernels
from fadelab_proto.codecs.base import F32, Chunk, CodecError, Encoding, Segment, check_finite

LARGEST = 65504.0

_U16 = NDArray[np.uint16]
_BLOCK = 1 << 17


@dataclass(frozen=True, slots=True)
class DenseF16:
    """16 bits for each entry, rounded to the nearest float16 (IEEE 754, ties to even)."""

    NUMBER: ClassVar[int] = pb.CODEC_DENSE_F16

    def encode(
        self,
        vector: F32,
        *,
        max_payload_bytes: int,
        generator: np.random.Generator,  # noqa: ARG002
    ) -> Encoding:
        """Cut the vector into runs of at most ``max_payload_bytes // 2`` entries.

        Raises:
            CodecError: if an entry is not finite or beyond 65504 in magnitude.

        """
        step = max_payload_bytes // 2
        if step == 0:
            raise CodecError(f"max_payload_bytes is {max_payload_bytes}; a float16 takes 2")
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        _check_range(vector)
        halves = _Halves(min(_BLOCK, len(vector)))
        chunks = tuple(
            Chunk(first, len(run), halves.round(run), self.NUMBER)
            for first in range(0, len(vector), step)
            if len(run := vector[first : first + step])
        )
        return Encoding(chunks, self.nominal_bits(len(vector)))

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Read ``count`` values; the payload must hold exactly that many."""
        if len(payload) != 2 * count:
            raise CodecError(f"{len(payload)} payload bytes cannot be {count} float16 values")
        halves = np.frombuffer(payload, dtype="<u2").astype(np.uint16, copy=False)
        content = kernels.in_use.float16(halves)
        if content is None:
            raise CodecError("the payload holds a value that is not finite")
        return Segment(first, content, largest=LARGEST)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:  # noqa: ARG002
        """Return ``16 * dimension``: packets add no payload bits of their own."""
        return 16 * dimension

    def nominal_bits(self, dimension: int) -> int:
        """Return ``16 * dimension``."""
        return 16 * dimension


def _check_range(vector: F32) -> None:
    if not len(vector) or max(vector.max(), -vector.min()) <= LARGEST:
        return
    check_finite(vector)
    position = int(np.flatnonzero(np.abs(vector) > LARGEST)[0])
    raise CodecError(
        f"entry {position} of the vector is {vector[position]}; float16 ends at {LARGEST:.0f}"
    )


class _Halves:
    """Rounds float32 to float16 by integer and float32 arithmetic, with numpy's very bits.

    numpy's own cast goes through one entry at a time and takes ten times as long. Adding 1.5 *
    2^(e + 13) to an entry with exponent e pushes all but ten bits of its fraction out of the sum,
    so that the processor does the rounding; e is at least -14, below which float16 has a fixed
    step. What is left after the subtraction is a float16 with float32's exponents. Multiplying by
    2^-112 makes the exponents float16's, subnormal numbers included.
    """

    def __init__(self, size: int) -> None:
        self._smallest = np.full(size, 2.0**-14, dtype=np.float32)
        self._large = np.empty(size, dtype=np.float32)
        self._rounded = np.empty(size, dtype=np.float32)

    def round(self, values: F32) -> bytes:
        """Return the float16 of each value, little-endian."""
        halves = np.empty(len(values), dtype="<u2")
        size = len(self._large)
        for at in range(0, len(values), size):
            self._round_block(values[at : at + size], halves[at : at + size])
        return halves.tobytes()

    def _round_block(self, values: F32, halves: _U16) -> None:
        large, rounded = self._large[: len(values)], self._rounded[: len(values)]
        bits, large_bits = rounded.view(np.uint32), large.view(np.uint32)
        np.bitwise_and(values.view(np.uint32), np.uint32(0x7F80_0000), out=large_bits)
        np.maximum(large, self._smallest[: len(values)], out=large)
        np.multiply(large, np.float32(1.5 * 2**13), out=large)
        np.add(values, large, out=rounded)
        np.subtract(rounded, large, out=rounded)
        np.multiply(rounded, np.float32(2.0**-112), out=rounded)
        np.right_shift(bits, np.uint32(13), out=bits)
        # The sign comes from the entry itself: what was rounded to 0 has lost it.
        signs = large_bits
        np.right_shift(values.view(np.uint32), np.uint32(16), out=signs)
        np.bitwise_and(signs, np.uint32(0x8000), out=signs)
        np.bitwise_or(bits, signs, out=bits)
        np.copyto(halves, bits, casting="unsafe")
