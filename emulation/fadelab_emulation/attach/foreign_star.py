"""A star of new links between namespaces that Fadelab did not make.

The hub is the namespace of the calling thread, which its program has entered and adopted. The
server's address is on every hub end instead of on the loopback interface, and nothing of the
namespaces themselves is changed: to remove the hub's ends is to remove everything.
"""

import errno
from collections.abc import Sequence
from dataclasses import replace

from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.backends.impairment.netem import delay_line
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.star import StarLinks
from fadelab_emulation.backends.topology import Crossing, DeviceEnd, Layout
from fadelab_emulation.backends.windows.base import Window
from fadelab_emulation.namespaces import NetworkNamespace, apply_settings
from fadelab_emulation.netlink.links import add_address, delete_link, set_alias
from fadelab_emulation.netlink.message import NetlinkError, NetlinkSocket
from fadelab_emulation.sandbox import assert_private_namespace
from fadelab_emulation.window import WindowMode

FIRST_HUB_INDEX = 500_000
FIRST_DEVICE_INDEX = 400_000
"""Beyond all interface indexes that the kernel gives by itself for a long time."""

REFUSED_WINDOWS = {
    WindowMode.REJECT: "the window mode 'reject' needs firewall rules and ICMP limits of whole "
    "network namespaces, which are not Fadelab's to change; use hold, drop or down"
}


class ForeignStar(StarLinks):
    """Links that are removed when they are closed, one of which may move to another namespace.

    Args:
        hub: a socket in the calling thread's namespace.
        ends: the devices' ends, their names free in their namespaces.
        layout: addresses, and indexes of the hub's ends.
        alias: what the alias of every interface is to be.

    Raises:
        ForeignNamespaceError: the calling thread's namespace was not adopted.

    """

    def __init__(
        self, hub: NetlinkSocket, ends: Sequence[DeviceEnd], layout: Layout, alias: str
    ) -> None:
        assert_private_namespace()
        super().__init__(hub, ends, layout)
        self._alias = alias
        self._carried = [Crossing(0, 0, 0, 0)] * len(self.ends)
        """By links that have been replaced."""
        self._made: set[int] = set()
        self._plan = LinkPlan([])

    def make(self, plan: LinkPlan) -> None:
        """Make every device's link, its gates closed, or none. Raises NetlinkError."""
        self._plan = plan
        try:
            for device in range(plan.devices):
                self._make_link(device)
        except BaseException:
            self._remove_links()
            raise

    def window(self, mode: WindowMode) -> Window:
        """Return what opens and closes the links; ValueError for a mode that reaches too far."""
        if mode in REFUSED_WINDOWS:
            raise ValueError(REFUSED_WINDOWS[mode])
        return super().window(mode)

    def move(self, device: int, namespace: NetworkNamespace) -> None:
        """Remove a device's link and make it anew, closed, in the namespace that it is in now.

        The former namespace is let go of. Raises NetlinkError.
        """
        (self._carried[device],) = self.crossings([device])
        self._remove_link(device)
        self.ends[device].namespace.close()
        self.ends[device] = replace(self.ends[device], namespace=namespace)
        self._make_link(device)

    def crossings(self, devices: Sequence[int]) -> list[Crossing]:
        """Read the counters of the hub's ends; what replaced links carried is included."""
        return [
            Crossing(*map(sum, zip(now, self._carried[device], strict=True)))
            for device, now in zip(devices, super().crossings(devices), strict=True)
        ]

    def close(self) -> None:
        """Remove the links and release every descriptor."""
        self._remove_links()
        super().close()

    def _make_link(self, device: int) -> None:
        end, index = self.ends[device], self.layout.hub_index(device)
        create, *rest = self.hub_side(device, self._plan)
        self.hub.change([create])
        self._made.add(device)
        self.hub.change([set_alias(index, self._alias)])
        # Router and neighbour solicitations would count as traffic.
        apply_settings(_without_ipv6(f"fl{device}"))
        end.namespace.run(lambda: apply_settings(_without_ipv6(end.name)))
        self.hub.change([add_address(index, self.server_address), *rest])
        alias = set_alias(end.index, self._alias)
        # The kernel carries out all of one call, whatever it refuses of it: until the shaper is
        # there for certain, the interface is down.
        end.namespace.netlink.change([alias, *self.device_shaper(device, self._plan)])
        end.namespace.netlink.change(self.device_side(device))

    def _remove_links(self) -> None:
        for device in tuple(self._made):
            self._remove_link(device)

    def _remove_link(self, device: int) -> None:
        self._made.discard(device)
        for direction in Direction:
            netlink, index = self.sender(device, direction)
            for one in (delay_line(index)[0], index):
                try:
                    netlink.change([delete_link(one)])
                except NetlinkError as error:
                    # Not all links have delay lines, and one end of a link takes the other along.
                    if error.errno != errno.ENODEV:
                        raise


def _without_ipv6(interface: str) -> dict[str, tuple[str]]:
    return {f"net/ipv6/conf/{interface}/disable_ipv6": ("1",)}
