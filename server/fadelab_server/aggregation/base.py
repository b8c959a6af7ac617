"""What an aggregation rule is: contributions in, now and then a new global vector out."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs import Segment
from fadelab_proto.runs import NO_RUNS, Runs

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Arrays = dict[str, NDArray[np.generic]]
Roster = frozenset[int]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One update, as far as it counts."""

    device: int
    base: F32
    """The global vector that local training started from."""
    segments: Iterable[Segment]
    """Local result minus ``base``, as far as the codec kept it, in pieces that add up to it."""
    base_version: int
    staleness: int
    """Versions published since ``base_version``."""
    samples: int
    missing: Runs = field(default_factory=lambda: NO_RUNS)
    """Coordinates of which the update says nothing, since packets of it are missing."""
    substituted: Runs = field(default_factory=lambda: NO_RUNS)
    """Coordinates whose sign arrived and whose modulus something else stands in for."""
    unused_signs: int = 0
    """Signs that arrived without a modulus and with nothing to stand in for it."""
    fresh_reference: bool = False
    """Whether the device does not know any more what it sent before."""

    def add_to(self, vector: F32 | F64, weight: float = 1.0) -> None:
        """Add ``weight`` times the update to ``vector`` in place."""
        for segment in self.segments:
            segment.add_to(vector, weight)


class AggregationRule(Protocol):
    """Decides what a contribution does to the global model; one instance for each task.

    Rules are pure bookkeeping: no I/O, no clock. Their pending state can be saved and restored, so
    that an acknowledged contribution survives a crash of the server.
    """

    synchronous: bool
    """Whether devices train in rounds from a common version."""
    incremental: bool
    """Whether an update that ends no round takes work in proportion to its packets, not the model."""
    takes_silence: bool
    """Whether an update may have no packets, and stand for what the device sent before."""

    def refuse(self, *, device: int, base_version: int, newest: int) -> str | None:
        """Return why an update of ``device`` would not be taken now, or None if it would."""
        ...

    def add(self, contribution: Contribution, *, newest: F32, roster: Roster) -> F32 | None:
        """Take a contribution; return the next global vector if it completes one.

        Args:
            contribution: an update that :meth:`refuse` let pass.
            newest: the newest global vector; not to be modified.
            roster: the devices in the run that train this task.

        """
        ...

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:
        """Return the next global vector if waiting for the remaining devices is now pointless."""
        ...

    def pending(self) -> Arrays:
        """Return the contributions that are taken but not yet in a version, as plain arrays."""
        ...

    def restore(self, pending: Arrays) -> None:
        """Continue from what :meth:`pending` returned."""
        ...
