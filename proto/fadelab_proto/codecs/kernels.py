"""The inner loops of decoding and adding up, in one of two forms that give the same bytes.

The numpy form (:mod:`fadelab_proto.codecs.plain_kernels`) is used unless :func:`accelerate` was
called. The other one (:mod:`fadelab_proto.codecs.accelerated_kernels`) is compiled by numba, goes
through memory once where numpy goes several times, and lets go of the interpreter meanwhile.
"""

from typing import Protocol

from fadelab_proto.codecs import plain_kernels
from fadelab_proto.codecs.plain_kernels import F32, F64, U8, U16, Codes, GolombRuns, Index, Scales


class AccelerationError(RuntimeError):
    """What the accelerated kernels need is not installed."""


class Kernels(Protocol):
    """What both forms consist of. Sizes that a payload names are checked before or inside."""

    def add(self, vector: F32 | F64, values: F32, weight: float) -> None:
        """Add ``weight`` times ``values`` to ``vector``, of the same length, in its precision."""
        ...

    def add_at(self, vector: F32 | F64, indices: Index, values: F32, weight: float) -> None:
        """Add ``weight`` times each value at its index.

        Raises:
            IndexError: if an index is beyond the vector.

        """
        ...

    def levels(self, codes: Codes, first: int, scales: Scales, values: F32) -> None:
        """Write the values of the codes of coordinates ``first`` and following, in float32."""
        ...

    def add_levels(
        self, codes: Codes, first: int, scales: Scales, vector: F32 | F64, weight: float
    ) -> None:
        """Do as :meth:`levels` and then :meth:`add`; ``vector`` covers the same coordinates."""
        ...

    def half_bytes(self, packed: U8, count: int) -> U8:
        """Return ``count`` numbers below 16, the first of each two from the lower half byte."""
        ...

    def widen(self, halves: U16, values: F32) -> bool:
        """Write the float32 of each float16; return whether all are finite."""
        ...

    def ones(self, data: U8, size: int) -> Index | None:
        """Return the positions of the bits that are set, lowest bit first; None if not ``size``."""
        ...

    def golomb_positions(self, runs: GolombRuns) -> Index | None:
        """Return the positions that gaps lead to; None if there are not as many quotients as gaps."""
        ...


in_use: Kernels = plain_kernels
"""What codecs call; always by way of this module, since :func:`accelerate` replaces it."""


def accelerate() -> None:
    """Use the compiled kernels in this process, and in those that it forks, from now on.

    They are compiled when they are first used on a machine, which takes some ten seconds, and kept
    beside the package, or in the user's cache where that cannot be written. The second call of a
    process does nothing.

    Raises:
        AccelerationError: if numba is not installed, or does not work here.

    """
    global in_use  # noqa: PLW0603 (one form for the whole process is the point)
    try:
        from fadelab_proto.codecs import accelerated_kernels  # noqa: PLC0415 (only on request)
    except ImportError as error:
        raise AccelerationError(
            f"codecs cannot be accelerated: {error} (pip install 'fadelab[accelerate]')"
        ) from None
    in_use = accelerated_kernels
