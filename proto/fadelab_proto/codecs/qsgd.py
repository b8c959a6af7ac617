"""QSGD: unbiased stochastic rounding relative to the Euclidean norm.

D. Alistarh, D. Grubic, J. Li, R. Tomioka and M. Vojnovic, "QSGD: Communication-efficient SGD via
gradient quantization and encoding", NeurIPS 2017, section 3.1.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs.base import F32, Encoding, Index
from fadelab_proto.codecs.bit_planes import check_bits
from fadelab_proto.codecs.grids import (
    BLOCK,
    blocks,
    largest_magnitudes,
    symmetric_grids,
)
from fadelab_proto.codecs.group_views import groups_within
from fadelab_proto.codecs.groups import Groups
from fadelab_proto.codecs.uniform import Order, PlaneWriter, half_levels, symmetric_rounder


@dataclass(frozen=True, slots=True)
class Qsgd:
    """``Q(x)_i = ||x||_2 sign(x_i) xi_i`` with ``xi_i`` in {0, 1/s, ..., 1} and ``E Q(x) = x``.

    ``s = 2^(bits - 1) - 1``, so that sign and level take ``bits`` together. The error's expected
    square is at most ``min(n / s^2, sqrt(n) / s) ||x||^2`` (lemma 3.1). Written in the format of
    :class:`fadelab_proto.codecs.uniform.Uniform`.

    Args:
        bits: bits of each entry, 2 to 16.
        groups: which coordinates share a norm; the paper's buckets.
        order: which packets come first; see :class:`fadelab_proto.codecs.uniform.PlaneWriter`.

    """

    bits: int
    groups: Groups = field(default_factory=Groups)
    order: Order = "coordinates"

    def __post_init__(self) -> None:
        check_bits(self.bits, least=2)
        self._writer()

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Round and write the vector.

        Raises:
            CodecError: if an entry is not finite, a norm is beyond float32, the layers do not add
                up, or packets are too small.

        """
        vector = np.ascontiguousarray(vector, dtype=np.float32)
        starts = self.groups.starts(len(vector))
        largest = largest_magnitudes(vector, starts)
        norms = np.sqrt(squared_norms(vector, starts))
        grids = symmetric_grids(starts, norms, half_levels(self.bits))
        rounder = symmetric_rounder(vector, grids, largest, self.bits, generator)
        chunks = self._writer().write(
            len(vector), grids, rounder, max_payload_bytes=max_payload_bytes
        )
        return Encoding(chunks, self.nominal_bits(len(vector)))

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the exact payload bits, which depend on the sizes alone."""
        return self._writer().coded_bits(dimension, max_payload_bytes=max_payload_bytes)

    def nominal_bits(self, dimension: int) -> int:
        """Return 32 for each norm and ``bits`` for each sign and level, all of fixed length.

        The paper's Elias code (theorem 3.2) is shorter where most levels are 0.
        """
        return 32 * len(self.groups.starts(dimension)) + self.bits * dimension

    def _writer(self) -> PlaneWriter:
        return PlaneWriter(self.bits, self.groups, self.order)


def squared_norms(vector: F32, starts: Index) -> NDArray[np.float64]:
    """Return the squared Euclidean norm of each group."""
    sums = np.zeros(len(starts))
    scratch = np.empty(min(BLOCK, len(vector)))
    for first, last in blocks(len(vector)):
        squares = scratch[: last - first]
        # Widening first and multiplying then is faster than what numpy does for mixed types.
        np.copyto(squares, vector[first:last])
        np.multiply(squares, squares, out=squares)
        groups = groups_within(starts, first, last)
        cuts = np.maximum(starts[groups] - first, 0)
        sums[groups] += np.add.reduceat(squares, cuts)
    return sums
