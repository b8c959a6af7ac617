"""EMQ with as many bits as each vector asks for, or as a budget allows.

The bits follow from the significance of the vector's entries, as the title of arXiv 2412.20785
promises; the paper's own rule is not known here. :mod:`fadelab_proto.codecs.emq_choice` judges all
pairs of exponent and mantissa bits by the error that they lead to.
"""

from dataclasses import dataclass

import numpy as np

from fadelab_proto.codecs.base import F32, CodecError, Encoding
from fadelab_proto.codecs.emq import EmqAdaptive, EmqFixed
from fadelab_proto.codecs.emq_choice import coarsest_within_error, finest_within_bits

_FINEST = (7, 8)
"""Exponent and mantissa bits of the longest code."""
_SAMPLES = 1 << 12
"""Entries that a vector is judged by: a device does it for every update, for some 80 codes."""


@dataclass(frozen=True, slots=True)
class EmqWithinError:
    """The coarsest code whose normalised mean squared error is ``nmse`` at most.

    A vector that no code writes so exactly gets the finest code.
    """

    nmse: float
    adaptive: bool = True

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Choose the bits, then write the vector."""
        try:
            codec = coarsest_within_error(
                vector, self.nmse, adaptive=self.adaptive, samples=_SAMPLES
            )
        except CodecError:
            codec = _finest(adaptive=self.adaptive)
        return codec.encode(vector, max_payload_bytes=max_payload_bytes, generator=generator)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return what the longest code takes."""
        finest = _finest(adaptive=False)
        return finest.estimate_bits(dimension, max_payload_bytes=max_payload_bytes)

    def nominal_bits(self, dimension: int) -> int:
        """Return the nominal bits of the longest code."""
        return _finest(adaptive=False).nominal_bits(dimension)


@dataclass(frozen=True, slots=True)
class EmqWithinBits:
    """The most exact code of ``bits_per_entry`` nominal bits per entry at most, at least 2."""

    bits_per_entry: float
    adaptive: bool = True

    def __post_init__(self) -> None:
        if not self.bits_per_entry >= 2:
            raise CodecError(f"{self.bits_per_entry:g} bits per entry; EMQ's shortest code takes 2")

    def encode(
        self, vector: F32, *, max_payload_bytes: int, generator: np.random.Generator
    ) -> Encoding:
        """Choose the bits, then write the vector."""
        codec = finest_within_bits(
            vector, self._bits(len(vector)), adaptive=self.adaptive, samples=_SAMPLES
        )
        return codec.encode(vector, max_payload_bytes=max_payload_bytes, generator=generator)

    def estimate_bits(self, dimension: int, *, max_payload_bytes: int) -> int:
        """Return what a code takes that uses all the bits."""
        finest = _finest(adaptive=False)
        longest = finest.estimate_bits(dimension, max_payload_bytes=max_payload_bytes)
        overhead = longest - finest.nominal_bits(dimension)
        return min(longest, self._bits(dimension) + overhead)

    def nominal_bits(self, dimension: int) -> int:
        """Return the bits that are allowed."""
        return self._bits(dimension)

    def _bits(self, dimension: int) -> int:
        return int(self.bits_per_entry * dimension)


def _finest(*, adaptive: bool) -> EmqFixed | EmqAdaptive:
    return EmqAdaptive(*_FINEST) if adaptive else EmqFixed(*_FINEST)
