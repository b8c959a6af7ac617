"""What a back-end is asked to make: links, their queues, packet classes and window semantics."""

from collections.abc import Sequence
from dataclasses import dataclass

from fadelab_emulation.netlink.traffic import MTU_FRAME_BYTES
from fadelab_emulation.window import WindowMode

FRAME_BYTES = MTU_FRAME_BYTES
"""A full Ethernet frame without its checksum."""


@dataclass(frozen=True, slots=True)
class QueueSizes:
    """Bytes each direction's queue of one device holds; with packet classes, each class's queue.

    A class's share of the rate may change, and a queue that is too short costs goodput, whereas
    one that is too long only adds delay to a class that fills it.
    """

    up_bytes: int
    down_bytes: int

    @classmethod
    def for_rates(cls, up_bps: float, down_bps: float) -> "QueueSizes":
        """Return queues of 60 ms at these rates, at least 8 full frames.

        Shorter ones cost goodput, longer ones only delay.
        """
        sizes = (round(max(8 * FRAME_BYTES, bps / 8 * 0.06)) for bps in (up_bps, down_bps))
        return cls(*sizes)


@dataclass(frozen=True, slots=True)
class ClassMark:
    """How the packets of a class are told from others: by DSCP or by a port at either end."""

    dscp: int | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """Everything about links that does not change while they exist."""

    queues: Sequence[QueueSizes]
    """One per device."""
    classes: tuple[ClassMark, ...] = ()
    """Packet classes besides the default one; lane ``i + 1`` of a tick is ``classes[i]``'s."""
    window: WindowMode = WindowMode.HOLD
    seed: int = 0
    """Seed of packet losses, where the back-end draws them itself."""

    @property
    def devices(self) -> int:
        """Number of links."""
        return len(self.queues)
