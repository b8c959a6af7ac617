"""Every entry as a little-endian float32, in coordinate order."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.base import F32, Chunk, CodecError, Encoding, Segment, check_finite


@dataclass(frozen=True, slots=True)
class DenseF32:
    """The uncompressed reference: 32 bits for each entry."""

    NUMBER: ClassVar[int] = pb.CODEC_DENSE_F32

    def encode(
        self,
        vector: F32,
        *,
        max_payload_bytes: int,
        generator: np.random.Generator,  # noqa: ARG002
    ) -> Encoding:
        """Cut the vector into runs of at most ``max_payload_bytes // 4`` entries."""
        chunks = self.chunks(vector, max_payload_bytes=max_payload_bytes)
        return Encoding(chunks, self.nominal_bits(len(vector)))

    def chunks(self, vector: F32, *, max_payload_bytes: int) -> tuple[Chunk, ...]:
        """Return what ``encode`` writes, which takes no chance."""
        check_finite(vector)
        step = max_payload_bytes // 4
        if step == 0:
            raise CodecError(f"max_payload_bytes is {max_payload_bytes}; a float32 takes 4")
        little = np.ascontiguousarray(vector, dtype="<f4")
        return tuple(
            Chunk(first, len(run), run.tobytes(), self.NUMBER)
            for first in range(0, len(little), step)
            if len(run := little[first : first + step])
        )

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Read ``count`` values; the payload must hold exactly that many."""
        if len(payload) != 4 * count:
            raise CodecError(f"{len(payload)} payload bytes cannot be {count} float32 values")
        values = np.frombuffer(payload, dtype="<f4")
        # Costs no more than looking for what is not finite; NaN comes through both.
        largest = max(values.max(), -values.min()) if count else 0
        if not np.isfinite(largest):
            raise CodecError("the payload holds a value that is not finite")
        return Segment(first, values, largest=float(largest))

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:  # noqa: ARG002
        """Return ``32 * dimension``: packets add no payload bits of their own."""
        return 32 * dimension

    def nominal_bits(self, dimension: int) -> int:
        """Return ``32 * dimension``."""
        return 32 * dimension
