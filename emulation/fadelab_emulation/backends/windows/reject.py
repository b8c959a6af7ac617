"""Reject: whoever sends is told at once that the host is unreachable, from the other end."""

from collections.abc import Sequence

from fadelab_emulation.backends.topology import Star, open_gates
from fadelab_emulation.backends.windows.base import Passed
from fadelab_emulation.namespaces import Setting, apply_settings
from fadelab_emulation.netlink.nftables import Rejections

_ICMP_SETTINGS = {
    # Every refused packet is to be answered: by default a sender is told once a second.
    "net/ipv4/icmp_ratelimit": ("0",),
    # Types that are subject to any limit, also to the machine's own (icmp_msgs_per_sec): none.
    "net/ipv4/icmp_ratemask": ("0",),
}


class RejectWindow:
    """ICMP host-unreachable messages (type 3 code 1) from the receiving end, without limit.

    From them TCP learns that the path is broken and not congested, and undoes the doubling of its
    retransmission timer (RFC 6069; ``tcp_ld_RTO_revert`` in net/ipv4/tcp_ipv4.c). The messages
    travel in the opposite direction at its rate, through its queue; a rejected packet has crossed
    the link, losses and delays included. What got through is what came past the rejection.
    """

    def __init__(self, star: Star) -> None:
        """Close all links; raises NetlinkError where the kernel lacks nf_tables."""
        self.settings: tuple[Setting, ...] = apply_settings(_ICMP_SETTINGS)
        self._star = star
        devices = range(len(star.ends))
        self._at_hub = Rejections([star.layout.hub_index(device) for device in devices])
        self._at_devices = [self._reject_at(device) for device in devices]
        for device in devices:
            open_gates(star, device)

    def open(self, device: int) -> None:
        """Accept packets at both ends."""
        self._at_hub.open_interfaces([self._star.layout.hub_index(device)])
        self._at_devices[device].open_interfaces([self._star.ends[device].index])

    def close(self, device: int) -> None:
        """Reject packets at both ends."""
        self._at_hub.close_interfaces([self._star.layout.hub_index(device)])
        self._at_devices[device].close_interfaces([self._star.ends[device].index])

    def renew(self, device: int) -> None:
        """Reject packets at both ends of the new link."""
        self._at_hub.close_interfaces([self._star.layout.hub_index(device)])
        self._at_devices[device].release()
        self._at_devices[device] = self._reject_at(device)
        open_gates(self._star, device)

    def passed(self, devices: Sequence[int]) -> list[Passed]:
        """Return how many packets, such messages aside, were neither lost nor rejected."""
        up = self._at_hub.passed([self._star.layout.hub_index(device) for device in devices])
        down = [
            self._at_devices[device].passed([self._star.ends[device].index])[0]
            for device in devices
        ]
        return [Passed(*counts) for counts in zip(up, down, strict=True)]

    def release(self) -> None:
        """Close the sockets to nf_tables."""
        for rejections in (self._at_hub, *self._at_devices):
            rejections.release()

    def _reject_at(self, device: int) -> Rejections:
        end = self._star.ends[device]

        def inside() -> Rejections:
            apply_settings(_ICMP_SETTINGS)
            return Rejections([end.index])

        return end.namespace.run(inside)
