"""The contract of an impairment: what befalls packets at the receiving end of a link.

A packet that is dropped where it is sent looks like local congestion to TCP, and a delay there
holds its buffers: both belong behind the shaper, where packets arrive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from fadelab_emulation.netlink.message import NetlinkSocket, Request


class Direction(IntEnum):
    """Which way packets go; the value is part of random seeds."""

    UP = 0
    DOWN = 1


@dataclass(frozen=True, slots=True)
class Port:
    """The receiving end of one direction of one link. Its ingress hook (clsact) is installed."""

    device: int
    direction: Direction
    netlink: NetlinkSocket
    """A socket in the namespace of the interface."""
    index: int
    """Interface index there."""


class LaneLoss(NamedTuple):
    """Gilbert-Elliott loss of one packet class; see :class:`fadelab_emulation.link_state`."""

    in_good: float
    in_bad: float
    to_bad: float
    to_good: float


class PortState(NamedTuple):
    """What befalls packets at a port."""

    losses: tuple[LaneLoss, ...]
    """Default class first."""
    delay_s: float
    jitter_s: float


class Arrivals(NamedTuple):
    """IPv4 packets that came to a port since its links were made."""

    arrived_packets: int
    lost_packets: int
    """How many of them the impairment lost."""


class Impairment(Protocol):
    """Brings ports into states; filters it installs have priority 2 or later.

    Priority 1 belongs to window semantics. All methods belong to one thread.
    """

    @property
    def name(self) -> str:
        """A word for the record: ``cbpf``, ``ebpf``, ``netem``."""
        ...

    @property
    def loss_is_seeded(self) -> bool:
        """Whether the same seed loses the same packets."""
        ...

    def prepare(self, port: Port) -> list[Request]:
        """Return what to send to ``port.netlink`` once, before the first change."""
        ...

    def change(self, port: Port, state: PortState) -> list[Request]:
        """Return what to send to bring a port into a state; maps in memory change at once."""
        ...

    def read(self, ports: Sequence[Port]) -> list[Arrivals]:
        """Return the counts of these ports."""
        ...

    def close(self) -> None:
        """Release what is held outside the namespaces."""
        ...
