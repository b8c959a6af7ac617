"""Top-q: the largest entries of a vector, each with few bits."""

import math
from dataclasses import dataclass

import numpy as np

from fadelab_proto.codecs.base import F32, CodecError, Encoding
from fadelab_proto.codecs.laq import Laq
from fadelab_proto.codecs.sparse import TopK


@dataclass(frozen=True, slots=True)
class TopQ:
    """Keep a share of the entries, those of largest magnitude, and round each to ``bits``.

    As the baseline "Top-q" is computed in the published code of A. Mahmoudi and E. Björnson,
    "Adaptive quantization resolution and power control for federated learning over cell-free
    networks", arXiv 2412.10878: ``ceil(fraction * n)`` entries, rounded to the nearest of
    ``2^bits`` levels between minus and plus the largest magnitude (:class:`Laq`). That code does
    not count what the indices take; here they are part of every figure.

    Args:
        fraction: share of the entries to keep, above 0 and at most 1.
        bits: bits of each kept entry, sign included, 1 to 16.

    """

    fraction: float
    bits: int

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise CodecError(f"fraction is {self.fraction}; it must be above 0 and at most 1")
        Laq(self.bits)

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Return the packets of the largest entries, largest first; each has its own levels."""
        codec = self.composed(len(vector))
        return codec.encode(vector, max_payload_bytes=max_payload_bytes, generator=generator)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return the payload bits if every set of indices is equally likely."""
        codec = self.composed(dimension)
        return codec.estimate_bits(dimension, max_payload_bytes=max_payload_bytes)

    def nominal_bits(self, dimension: int) -> int:
        """Return ``bits + ceil(log2 dimension)`` for each kept entry, and 32 for the magnitude."""
        return self.composed(dimension).nominal_bits(dimension)

    def composed(self, dimension: int) -> TopK:
        """Return the sparsifier and quantiser that this is for a vector of that length."""
        return TopK(max(1, math.ceil(self.fraction * dimension)), Laq(self.bits))
