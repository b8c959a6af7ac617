"""What a codec is: encode, decode, and a forecast of the size.

A codec reports three numbers of bits that are never mixed: *nominal* bits, by the formula of its
paper; *coded* bits, the payloads that it really wrote; and, counted elsewhere, what packet headers
and transport add to them on the wire.
"""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import kernels
from fadelab_proto.codecs.kernels import Computed

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Index = NDArray[np.int64]


class CodecError(ValueError):
    """The vector cannot be encoded, or the payload was not produced by this codec."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One packet's worth of an encoded vector."""

    first: int
    count: int
    payload: bytes
    codec: int
    """What decodes it, by its number in federation.proto's ``Codec``."""
    packet_class: int = pb.PACKET_CLASS_UPDATE


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoded vector."""

    chunks: tuple[Chunk, ...]
    """The most useful ones first: what arrives of an update that is cut off is the best part."""
    nominal_bits: int
    """Length of this vector's code by the formula of the paper that the codec is from."""

    @property
    def coded_bits(self) -> int:
        """Bits of all payloads."""
        return 8 * sum(len(chunk.payload) for chunk in self.chunks)


class Part(Enum):
    """What the values of a segment are."""

    VALUES = "values"
    """Entries, or what is to be added to them: segments of one vector add up to it."""
    SIGNS = "signs"
    """Signs of entries, 1 or -1."""
    MODULI = "moduli"
    """Absolute values of entries, >= 0."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Decoded entries of a vector: values at ``first + indices``, or consecutive if None."""

    first: int
    content: F32 | Computed
    """The values, or what computes them."""
    indices: Index | None = None
    """Strictly increasing."""
    part: Part = Part.VALUES
    refines: bool = False
    """Whether the values only refine entries that another packet of the same update brings."""
    largest: float | None = None
    """No value is larger in magnitude, as far as the payload says so without a look at the values."""

    @property
    def values(self) -> F32:
        """The values, computed at every look if need be."""
        return self.content if isinstance(self.content, np.ndarray) else self.content.values()

    def magnitude_bound(self) -> float:
        """Return what no value exceeds in magnitude; from the values themselves if need be."""
        if self.largest is not None:
            return self.largest
        values = self.values
        return float(max(values.max(), -values.min())) if values.size else 0.0

    def add_to(self, vector: F32 | F64, weight: float = 1.0) -> None:
        """Add ``weight`` times the values to ``vector`` in place, in the vector's precision."""
        if self.indices is not None:
            self._add_at(vector[self.first :], self.indices, weight)
            return
        covered = vector[self.first : self.first + len(self.content)]
        if isinstance(self.content, np.ndarray):
            kernels.in_use.add(covered, self.content, weight)
        else:
            self.content.add_to(covered, weight)

    def _add_at(self, vector: F32 | F64, indices: Index, weight: float) -> None:
        if isinstance(self.content, np.ndarray):
            kernels.in_use.add_at(vector, indices, self.content, weight)
        else:
            self.content.add_at(vector, indices, weight)

    def copy_to(self, vector: F32) -> None:
        """Overwrite the covered entries of ``vector`` with the values."""
        values = self.values
        if self.indices is None:
            vector[self.first : self.first + len(values)] = values
        else:
            vector[self.indices + self.first] = values


class Codec(Protocol):
    """A way to write a float32 vector as packet payloads.

    An instance holds the parameters of encoding (how many entries to keep, how many bits); decoding
    needs none, since every payload carries what it takes. Decoding is the business of the payload
    formats in :data:`fadelab_proto.codecs.FORMATS`; one codec may write several.
    """

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Return the code of ``vector``, shape ``(n,)``.

        Args:
            vector: what to encode; it is not changed.
            max_payload_bytes: upper bound of each payload.
            generator: where dither comes from; codecs that round to nearest leave it alone.

        Raises:
            CodecError: if an entry is not finite, or a parameter does not fit the vector.

        """
        ...

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return how many payload bits a vector of ``dimension`` entries will take.

        Exact where the length of the code does not depend on the entries; otherwise what a vector
        takes whose kept entries lie anywhere with equal probability, which real ones rarely exceed.
        """
        ...

    def nominal_bits(self, dimension: int) -> int:
        """Return the bits by the formula of the paper, as far as they are known beforehand."""
        ...


class PayloadFormat(Protocol):
    """A layout of payloads, and the only thing that a receiver has to know."""

    NUMBER: ClassVar[int]
    """Its value in federation.proto's ``Codec``."""

    @staticmethod
    def decode(payload: bytes | memoryview, *, first: int, count: int) -> Segment:
        """Return the entries that one payload holds; pure, and safe on hostile bytes.

        Sizes are checked before anything is allocated, and nothing larger than in proportion to
        ``count`` and the payload is.

        Args:
            payload: the packet's payload.
            first: first coordinate that the packet covers.
            count: number of coordinates that it covers.

        Raises:
            CodecError: if no codec makes this payload of ``count`` coordinates.

        """
        ...


def check_finite(vector: F32) -> None:
    """Refuse vectors that hold NaN or infinity.

    Raises:
        CodecError: naming the first offending entry.

    """
    # A sum is finite only if all entries are, and takes no second array; huge ones may overflow it.
    if np.isfinite(np.einsum("i->", vector)) or np.isfinite(vector).all():
        return
    position = int(np.flatnonzero(~np.isfinite(vector))[0])
    raise CodecError(f"entry {position} of the vector is {vector[position]}, not a finite number")
