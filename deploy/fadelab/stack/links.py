"""A node's links: one for every device of the run, of which agents of this node use some.

A link waits in a network of its own, where nobody is, until the agent comes to this node; then it
is made anew, closed, in the agent's network. So a node needs to know nothing of who is where.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fadelab.emulate.site import Opened
from fadelab_emulation.attach.checks import check_machine_is_meant
from fadelab_emulation.attach.foreign_star import (
    FIRST_DEVICE_INDEX,
    FIRST_HUB_INDEX,
    ForeignStar,
)
from fadelab_emulation.attach.interfaces import list_interfaces
from fadelab_emulation.attach.places import Place, RefusedPlaceError, open_place
from fadelab_emulation.backends.choice import Variant
from fadelab_emulation.backends.factory import make_kernel_backend
from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.topology import DeviceEnd, Layout
from fadelab_emulation.byte_watch import WatchedEnd
from fadelab_emulation.namespaces import create_namespaces
from fadelab_emulation.netlink.links import parse_counters, read_counters, set_down
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_emulation.sandbox import adopt_network
from fadelab_proto.clock import Clock

INTERFACE = "fl0"
NETWORK = "10.77"


@dataclass(frozen=True, slots=True)
class Sealed:
    """An interface that was up in an agent's network and is down now."""

    name: str
    sent_packets: int
    """What it had sent before: neighbours' greetings at most, for no route leads over it."""


@dataclass(frozen=True, slots=True)
class Residence:
    """A network that an agent lives in, out of which nothing leads but a link of ours."""

    opened: Opened | None
    """None: the link is there already."""
    sealed: tuple[Sealed, ...] = ()


class NodeLinks:
    """The links, waiting; the hub is this process's own network, which is its container's alone.

    Args:
        devices: how many.
        alias: what the alias of every interface is to be.
        tell: hears of what a killed process left behind.

    """

    def __init__(self, devices: int, alias: str, tell: Callable[[str], None]) -> None:
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        adopt_network(own)
        os.close(own)
        self._tell = tell
        self._residents: dict[int, tuple[int, int]] = {}
        layout = Layout(NETWORK, FIRST_HUB_INDEX)
        waiting = [namespace for namespace, _ in create_namespaces(devices, lambda: None)]
        ends = [
            DeviceEnd(namespace, FIRST_DEVICE_INDEX + device, INTERFACE)
            for device, namespace in enumerate(waiting)
        ]
        self.ends = [
            WatchedEnd(FIRST_DEVICE_INDEX + device, layout.device_address(device))
            for device in range(devices)
        ]
        self._star = ForeignStar(NetlinkSocket(), ends, layout, alias)

    def make(self, variant: Variant, plan: LinkPlan, clock: Clock) -> KernelBackend:
        """Make the links, each in a network of its own."""
        return make_kernel_backend(variant, plan, clock, self._star)

    def look(self, device: int, descriptor: int) -> Residence:
        """Open an agent's network and take every interface in it down.

        Args:
            device: the agent's number.
            descriptor: of the network namespace; is closed.

        Raises:
            RefusedPlaceError: it cannot be used.
            MissingCapabilityError: it may not be entered.
            NetlinkError: an interface stays up.

        """
        place = _open(device, descriptor)
        check_machine_is_meant([place], allow_host=False)
        for other, identity in self._residents.items():
            if identity == place.identity:
                place.close()
                if other == device:
                    return Residence(None)
                raise RefusedPlaceError(
                    f"device {device} and device {other} are in one network namespace: every "
                    "device needs one of its own"
                )
        opened = Opened.of(place, self._tell)
        return Residence(opened, _seal(opened.namespace.netlink))

    def move(self, device: int, opened: Opened, backend: KernelBackend) -> None:
        """Make a device's link anew where its agent is; in the back-end's thread."""
        self._star.move(device, opened.namespace)
        backend.renew(device)
        self._residents[device] = opened.place.identity


def _open(device: int, descriptor: int) -> Place:
    try:
        return open_place(f"the network of device {device}", Path(f"/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)


def _seal(netlink: NetlinkSocket) -> tuple[Sealed, ...]:
    """Take all interfaces but loopback down, which takes their routes away."""
    open_ones = [one for one in list_interfaces(netlink) if one.is_up and not one.is_loopback]
    netlink.change([set_down(one.index) for one in open_ones])
    return tuple(
        Sealed(one.name, parse_counters(netlink.query([read_counters(one.index)])[0]).tx_packets)
        for one in open_ones
    )
