"""What the kernel back-end asks of the links it drives: all that is special to where they are."""

from collections.abc import Sequence
from typing import Protocol

from fadelab_emulation.backends.impairment.base import Direction, Port
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.topology import Crossing
from fadelab_emulation.backends.windows.base import Window
from fadelab_emulation.namespaces import NetworkNamespace, Setting
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_emulation.window import WindowMode


class KernelLinks(Protocol):
    """Links in one place or another: made, shaped, counted and taken away."""

    settings: tuple[Setting, ...]
    uplinks_arrive_here: bool
    """Whether what devices send can be seen arriving in this thread's namespace."""

    @property
    def namespaces(self) -> Sequence[NetworkNamespace]:
        """Where each device's processes live."""
        ...

    @property
    def server_address(self) -> str:
        """The address that devices reach the server at; empty where nothing is known of it."""
        ...

    def make(self, plan: LinkPlan) -> None:
        """Make the links, closed, at the lowest rate; whatever fails is undone."""
        ...

    def window(self, mode: WindowMode) -> Window:
        """Return what opens and closes the links, once they are made."""
        ...

    def sender(self, device: int, direction: Direction) -> tuple[NetlinkSocket, int]:
        """Return a socket beside the interface at which a direction is shaped, and its index."""
        ...

    def port(self, device: int, direction: Direction) -> Port:
        """Return where packets of a direction arrive."""
        ...

    def crossings(self, devices: Sequence[int]) -> list[Crossing]:
        """Return what went over links since they were first made."""
        ...

    def close(self) -> None:
        """Take the links away and release every descriptor."""
        ...
