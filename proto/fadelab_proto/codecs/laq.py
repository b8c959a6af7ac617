"""Rounding to the nearest of 2^b levels between minus and plus the largest magnitude.

LAQ: J. Sun, T. Chen, G. B. Giannakis and Z. Yang, "Communication-efficient distributed learning via
lazily aggregated quantized gradients", NeurIPS 2019. AQUILA: Z. Zhao et al., "AQUILA: Communication
efficient federated learning with adaptive quantization in device selection strategy", arXiv
2308.00258. Both encode innovations, differences to the
last quantised gradient; what is encoded is the caller's business.
"""

from dataclasses import dataclass, field
from math import floor, log, log2, sqrt

import numpy as np

from fadelab_proto.codecs.base import F32, Encoding
from fadelab_proto.codecs.bit_planes import MAX_BITS
from fadelab_proto.codecs.grids import largest_magnitudes, symmetric_grids
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.qsgd import squared_norms
from fadelab_proto.codecs.rounding import Rounder
from fadelab_proto.codecs.uniform import Order, PlaneWriter


@dataclass(frozen=True, slots=True)
class Laq:
    """LAQ's quantiser: ``-R + 2 t floor((v + R + t) / (2 t))`` with ``t = R / (2^bits - 1)``.

    R is the largest magnitude of a group; the error is at most t, and zeros do not stay zeros.
    Written in the format of :class:`fadelab_proto.codecs.uniform.Uniform`.

    Args:
        bits: bits of each entry, 1 to 16.
        groups: which coordinates share R; the paper has one group.
        order: which packets come first; see :class:`fadelab_proto.codecs.uniform.PlaneWriter`.

    """

    bits: int
    groups: Groups = field(default_factory=Groups)
    order: Order = "coordinates"

    def __post_init__(self) -> None:
        self._writer()

    def encode(
        self,
        vector: F32,
        *,
        max_payload_bytes: int,
        generator: np.random.Generator,  # noqa: ARG002
    ) -> Encoding:
        """Round and write the vector.

        Raises:
            CodecError: if an entry is not finite, a step would be beyond float32 (one bit and
                entries above 1.7e38), the layers do not add up, or packets are too small.

        """
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        starts = self.groups.starts(len(vector))
        largest = largest_magnitudes(vector, starts)
        half = (2**self.bits - 1) / 2
        grids = symmetric_grids(starts, largest, half)
        rounder = Rounder(
            vector, grids, bits=self.bits, zero=half, reach=largest, most=half, dither=None
        )
        chunks = self._writer().write(
            len(vector), grids, rounder, max_payload_bytes=max_payload_bytes
        )
        return Encoding(chunks, self.nominal_bits(len(vector)))

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the exact payload bits, which depend on the sizes alone."""
        return self._writer().coded_bits(dimension, max_payload_bytes=max_payload_bytes)

    def nominal_bits(self, dimension: int) -> int:
        """Return 32 for each R and ``bits`` for each entry."""
        return 32 * len(self.groups.starts(dimension)) + self.bits * dimension

    def _writer(self) -> PlaneWriter:
        return PlaneWriter(self.bits, self.groups, self.order)


@dataclass(frozen=True, slots=True)
class Aquila:
    """LAQ's quantiser with AQUILA's number of bits for each vector; see :func:`aquila_bits`."""

    order: Order = "coordinates"

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Choose the bits, then do as :class:`Laq` does."""
        codec = Laq(aquila_bits(vector), order=self.order)
        return codec.encode(vector, max_payload_bytes=max_payload_bytes, generator=generator)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the payload bits of a vector of normally distributed entries."""
        return self._usual(dimension).estimate_bits(dimension, max_payload_bytes=max_payload_bytes)

    def nominal_bits(self, dimension: int) -> int:
        """Return the nominal bits of a vector of normally distributed entries."""
        return self._usual(dimension).nominal_bits(dimension)

    def _usual(self, dimension: int) -> Laq:
        # The largest of n normal numbers is about sqrt(2 ln 2n) standard deviations.
        return Laq(_bits(sqrt(2 * log(2 * max(1, dimension)))), order=self.order)


def aquila_bits(vector: F32) -> int:
    """Return ``floor(log2(1 + R sqrt(n) / ||v||_2))``, at least 1 and at most 16.

    R is the largest magnitude of the vector v of n entries. A vector of zeros takes 1.

    Raises:
        CodecError: if an entry is not finite.

    """
    vector = np.ascontiguousarray(vector, dtype=np.float32)
    starts = Groups().starts(len(vector))
    largest = largest_magnitudes(vector, starts)
    if not largest.any():
        return 1
    root_mean_square = sqrt(float(squared_norms(vector, starts)[0]) / len(vector))
    return _bits(float(largest[0]) / root_mean_square)


def _bits(peak_to_root_mean_square: float) -> int:
    return min(MAX_BITS, max(1, floor(log2(1 + peak_to_root_mean_square))))
