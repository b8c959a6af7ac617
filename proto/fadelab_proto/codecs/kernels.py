"""The inner loops of decoding and adding up, in one of two forms that give the same bytes.

The numpy form (:mod:`fadelab_proto.codecs.plain_kernels`) is used unless :func:`accelerate` was
called. The other one (:mod:`fadelab_proto.codecs.accelerated_kernels`) is compiled by numba, goes
through memory once where numpy goes several times, and lets go of the interpreter meanwhile.
"""

from typing import Protocol

from fadelab_proto.codecs import plain_kernels
from fadelab_proto.codecs.plain_kernels import F32, F64, U8, U16, Codes, Index, Scales


class AccelerationError(RuntimeError):
    """What the accelerated kernels need is not installed."""


class Computed(Protocol):
    """Values that are computed when they are needed; they are finite, whatever the payload holds."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def values(self) -> F32:
        """Return them."""
        ...

    def add_to(self, vector: F32 | F64, weight: float) -> None:
        """Add them ``weight`` times to a vector of their length, in its precision."""
        ...

    def add_at(self, vector: F32 | F64, indices: Index, weight: float) -> None:
        """Add them ``weight`` times at indices, which increase.

        Raises:
            IndexError: if an index is beyond the vector.

        """
        ...


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

    def add_levels_at(  # noqa: PLR0917 (codes, where they are added, and how)
        self,
        codes: Codes,
        first: int,
        scales: Scales,
        vector: F32 | F64,
        indices: Index,
        weight: float,
    ) -> None:
        """Do as :meth:`levels` and then :meth:`add_at`; ``indices`` are those of these codes."""
        ...

    def add_half_levels_at(
        self, packed: U8, scales: Scales, vector: F32 | F64, indices: Index, weight: float
    ) -> None:
        """Do as :meth:`add_levels_at` with all codes of a packet, as :meth:`half_bytes` has them."""
        ...

    def half_bytes(self, packed: U8, count: int) -> U8:
        """Return ``count`` numbers below 16, the first of each two from the lower half byte."""
        ...

    def float16(self, halves: U16) -> F32 | Computed | None:
        """Return the float32 of each float16, or what computes them; None if not all are finite."""
        ...

    def indices(self, data: U8, k: int, n: int) -> Index | None:
        """Return the indices of a set in any code of ``index_sets`` if this form can.

        Args:
            data: the whole set, at least a byte.
            k: how many indices it must hold, at most eight for each byte.
            n: what they must be below.

        Returns:
            None if the set is damaged, its code is not one of this form, or this form has none:
            ``index_sets`` then reads it and says what is wrong with it.

        """
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
