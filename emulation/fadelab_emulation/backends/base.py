"""What every link back-end offers to the emulator's tick loop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fadelab_emulation.link_state import FloatArray, LinkTick
from fadelab_emulation.namespaces import NetworkNamespace, Setting

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DirectionCounters:
    """What one direction of every link has carried; arrays have shape ``(devices,)``."""

    wire_bytes: IntArray
    """Layer-2 bytes that crossed the link; a packet that is then lost on the air counts."""
    wire_packets: IntArray
    programmed_bytes: FloatArray
    """Integral of the programmed rate over the sampling intervals in which the link was open and
    its queue was occupied at both ends."""
    achieved_bytes: IntArray
    """Layer-2 bytes that left the shaper in those same intervals."""
    stretches: IntArray
    """Uninterrupted sequences of such intervals; each may be off by a few frames at its ends."""
    leaked_packets: IntArray
    """Packets that got through while the link was closed, after the guard time."""
    arrived_packets: IntArray
    """IPv4 packets that came to the point at which losses are drawn."""
    lost_packets: IntArray
    """How many of them were lost there."""
    expected_losses: FloatArray
    """How many were to be expected by the probabilities in force, sampled once per tick."""


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Both directions, seen from the device."""

    up: DirectionCounters
    down: DirectionCounters

    def wire_since(self, earlier: "LinkCounters") -> "LinkCounters":
        """Return the same with what crossed the links counted from an earlier reading on."""
        up, down = (
            replace(
                now,
                wire_bytes=now.wire_bytes - before.wire_bytes,
                wire_packets=now.wire_packets - before.wire_packets,
            )
            for now, before in ((self.up, earlier.up), (self.down, earlier.down))
        )
        return LinkCounters(up, down)


@dataclass(frozen=True, slots=True)
class Resume:
    """An uplink that had data waiting when its contact window reopened."""

    device: int
    opened_s: float
    """Monotonic second at which the gate was opened."""
    resume_s: float
    """Seconds from then until the first IPv4 frame arrived at the base station's end."""


@dataclass(frozen=True, slots=True)
class DirectionSample:
    """One direction's running counts at one instant; arrays have the shape of the devices asked."""

    sent_bytes: IntArray
    """Layer-2 bytes that have left the shaper."""
    backlog_bytes: IntArray
    """Layer-2 bytes that wait in its queue."""
    through_packets: IntArray
    """Packets that came past the window to the other end, before losses are drawn."""
    arrived_packets: IntArray
    lost_packets: IntArray


@dataclass(frozen=True, slots=True)
class LinkSample:
    """Running counts of some links, open or closed, read together."""

    devices: IntArray
    up: DirectionSample
    down: DirectionSample


@dataclass(frozen=True, slots=True)
class ClassCounters:
    """What the queues of the packet classes have done since the links were made.

    Arrays have shape ``(2, lanes, devices)``: uplinks, then downlinks; the default class is the
    first lane. A packet that is then lost on the air counts.
    """

    sent_bytes: IntArray
    sent_packets: IntArray
    overflowed_packets: IntArray
    """Found their queue full: the sender counts them, the link never saw them."""


class LinkBackend(Protocol):
    """One shaped link per device; closed until the first tick says otherwise.

    All methods belong to one thread.
    """

    server_address: str

    @property
    def name(self) -> str:
        """The word for it in configurations and records."""
        ...

    @property
    def namespaces(self) -> Sequence[NetworkNamespace]:
        """Where each device's processes live."""
        ...

    @property
    def settings(self) -> Sequence[Setting]:
        """Kernel settings obtained on the server's side; the devices' are in their namespaces."""
        ...

    def apply(self, tick: LinkTick) -> None:
        """Bring every link into the tick's state, sending only what differs from the last one."""
        ...

    def sample(self) -> LinkSample:
        """Read shapers for the programmed-against-achieved account; call it once per tick.

        Of many devices only some are read each time, in turns.
        """
        ...

    def next_guard_s(self) -> float | None:
        """Return the monotonic second at which check_guards is due; None if nothing waits."""
        ...

    def check_guards(self) -> None:
        """Start the leak count of links whose guard time after closing is over."""
        ...

    def resume_fileno(self) -> int:
        """Return a descriptor that becomes readable when a reopened uplink has resumed."""
        ...

    def drain_resumes(self) -> list[Resume]:
        """Return the resumptions seen since the last call; never waits."""
        ...

    def counters(self) -> LinkCounters:
        """Read the interfaces and return all counts since the start."""
        ...

    def waiting_bytes(self) -> IntArray:
        """Return the layer-2 bytes that wait to be sent, up and down; shape ``(2, devices)``."""
        ...

    def class_counters(self) -> ClassCounters:
        """Read what each packet class has sent, over all links."""
        ...

    def close(self) -> None:
        """Remove the links and release every descriptor."""
        ...
