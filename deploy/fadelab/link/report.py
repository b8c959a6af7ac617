"""What links did, as handed from the processes that drove them to the one that shows it."""

from fadelab_emulation.backends.base import DirectionCounters
from fadelab_emulation.backends.choice import Variant
from fadelab_proto.config import StrictModel


class WayReport(StrictModel):
    """One direction of one link."""

    wire_bytes: int
    """Layer-2 bytes that crossed the link."""
    programmed_bytes: float
    """What it could have carried while something waited, see
    :class:`fadelab_emulation.backends.base.DirectionCounters`."""
    achieved_bytes: int
    """What it carried in that time."""
    stretches: int
    arrived_packets: int
    lost_packets: int
    expected_losses: float
    leaked_packets: int

    @classmethod
    def of(cls, counters: DirectionCounters, device: int) -> "WayReport":
        """Return one device's counts."""
        return cls(
            wire_bytes=int(counters.wire_bytes[device]),
            programmed_bytes=float(counters.programmed_bytes[device]),
            achieved_bytes=int(counters.achieved_bytes[device]),
            stretches=int(counters.stretches[device]),
            arrived_packets=int(counters.arrived_packets[device]),
            lost_packets=int(counters.lost_packets[device]),
            expected_losses=float(counters.expected_losses[device]),
            leaked_packets=int(counters.leaked_packets[device]),
        )

    @property
    def ratio(self) -> float | None:
        """Achieved over programmed bytes; None for a link that never had anything waiting."""
        return self.achieved_bytes / self.programmed_bytes if self.programmed_bytes else None


class DeviceReport(StrictModel):
    """One link."""

    device: int
    up: WayReport
    down: WayReport
    windows: int
    """How often the link was open, each time until it closed or all was over."""
    closed_s: float
    """Emulated seconds in which it was closed."""


class TimingReport(StrictModel):
    """How well the timeline was kept."""

    ticks: int
    late_median_ms: float
    late_p99_ms: float
    late_max_ms: float


class LinksReport(StrictModel):
    """All links of a job."""

    variant: Variant
    why: str
    timing: TimingReport
    devices: list[DeviceReport]
