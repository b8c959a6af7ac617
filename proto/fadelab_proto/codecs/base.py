"""What a codec is: encode, decode and an exact size estimate."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Index = NDArray[np.int64]


class CodecError(ValueError):
    """The vector cannot be encoded, or the payload was not produced by this codec."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One packet's worth of an encoded vector."""

    first: int
    count: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """Decoded entries of a vector: values at ``first + indices``, or consecutive if None."""

    first: int
    values: F32
    indices: Index | None = None

    def add_to(self, vector: F32, weight: float = 1.0) -> None:
        """Add ``weight`` times the values to ``vector`` in place."""
        values = self.values if weight == 1.0 else self.values * np.float32(weight)
        if self.indices is None:
            vector[self.first : self.first + len(values)] += values
        else:
            vector[self.indices + self.first] += values

    def copy_to(self, vector: F32) -> None:
        """Overwrite the covered entries of ``vector`` with the values."""
        if self.indices is None:
            vector[self.first : self.first + len(self.values)] = self.values
        else:
            vector[self.indices + self.first] = self.values


class Codec(Protocol):
    """A way to write a float32 vector as packet payloads.

    An instance holds the parameters of encoding (how many entries to keep, how many bits); decoding
    needs none, since every payload carries what it takes.
    """

    NUMBER: ClassVar[int]
    """The codec's value in federation.proto's ``Codec``."""

    def encode(self, vector: F32, *, max_payload_bytes: int) -> list[Chunk]:
        """Return the chunks of ``vector`` (shape ``(n,)``), the most useful ones first.

        Raises:
            CodecError: if an entry is not finite, or a parameter does not fit the vector.

        """
        ...

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Return the entries that one payload holds; pure, and safe on hostile bytes.

        Raises:
            CodecError: if the payload was not produced by this codec for ``count`` coordinates.

        """
        ...

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the payload bits that ``encode`` would produce for ``dimension`` entries."""
        ...


def check_finite(vector: F32) -> None:
    """Refuse vectors that hold NaN or infinity.

    Raises:
        CodecError: naming the first offending entry.

    """
    if np.isfinite(vector).all():
        return
    position = int(np.flatnonzero(~np.isfinite(vector))[0])
    raise CodecError(f"entry {position} of the vector is {vector[position]}, not a finite number")
