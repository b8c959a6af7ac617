"""What an allocator of rounds is: the reports of a round's devices in, a grant for each out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class AllocationError(RuntimeError):
    """Nothing can be allocated, and so no round can end; the message says why."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a device tells of an update before it uploads it."""

    device: int
    update_id: int
    base_version: int
    numbers: Mapping[str, float]
    """Every number that the allocator wants, and perhaps others; all finite and not negative."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one device is given for one upload, and what follows from that as far as is known."""

    power_w: float
    """0: the device uploads nothing in this round."""
    rate_bps: float
    upload_s: float
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What else the device is told."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A round that was decided before the server was restarted."""

    reports: Mapping[int, Report]
    grants: Mapping[int, Grant]
    finished: frozenset[int]
    """Devices whose updates have arrived."""


class Allocator(Protocol):
    """Decides once for each round, and sees to it that what it decided is in force."""

    wanted: tuple[str, ...]
    """The numbers that every report must have."""
    decides_again: bool
    """Whether it decides anew for the others whenever a device has finished."""

    async def decide(
        self, version: int, reports: Mapping[int, Report], arrived: Mapping[int, float]
    ) -> Mapping[int, Grant]:
        """Return a grant for each device that reported; when it returns they are in force.

        Args:
            version: the model version that the round's devices trained from.
            reports: by device, of all who train in this round.
            arrived: by device, the share of its update that has arrived already, 1 for all of it;
                empty when a round begins.

        Raises:
            AllocationError: if no round can be planned; the run then ends with the message.

        """
        ...

    async def between_rounds(self) -> None:
        """See to it that devices can fetch models and report until the next round is decided.

        Raises:
            AllocationError: likewise.

        """
        ...

    def under_way(self, version: int) -> UnderWay | None:
        """Return what was decided of a version's round before a restart; None if nothing was."""
        ...

    async def again_in_force(self) -> None:
        """See to it that what was decided before a restart is in force.

        Raises:
            AllocationError: likewise.

        """
        ...

    def uploaded(self, device: int, arrived_s: float) -> None:
        """Note that the last packet of a device's update came at a moment of the clock."""
        ...

    def ended(self, version: int) -> str | None:
        """Book the round that made a version, if it is not; return why the run is over, or None."""
        ...

    async def close(self) -> None:
        """Let go of what it works with."""
        ...
