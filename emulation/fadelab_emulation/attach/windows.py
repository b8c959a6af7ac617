"""Windows at one end of a link: gates at the interface and at its IFB, filters in front of both."""

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from fadelab_emulation.backends import topology
from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.backends.topology import Crossing
from fadelab_emulation.backends.windows.base import Passed
from fadelab_emulation.backends.windows.counting import crossed
from fadelab_emulation.namespaces import NetworkNamespace, Setting
from fadelab_emulation.netlink import filters, traffic
from fadelab_emulation.netlink.classic_bpf import Operation, Step
from fadelab_emulation.netlink.message import NetlinkSocket

_PRIORITY = 1
_STEAL_ALL = (Step(Operation.RETURN, filters.STEAL),)
_LET_ALL_GO_ON = (Step(Operation.RETURN, filters.GO_ON),)
_SO_PRIORITY = 12
_ETH_P_EXPERIMENT = 0x88B5
"""For experiments on one machine (IEEE 802); no frame of it is ever sent."""
_NUDGE = bytes(46)

_OPEN_BUCKET_BYTES = traffic.MTU_FRAME_BYTES + 100
"""Holds one frame but not two, so that the gate cuts bundles of frames."""


class OneSidedLinks(Protocol):
    """What windows need to know of attached links."""

    @property
    def namespaces(self) -> Sequence[NetworkNamespace]:
        """Where the interfaces are, one for each device."""
        ...

    def sender(self, device: int, direction: Direction) -> tuple[NetlinkSocket, int]:
        """Return a socket beside the interface at which a direction is shaped, and its index."""
        ...

    def crossings(self, devices: Sequence[int]) -> list[Crossing]:
        """Return what went over links so far."""
        ...

    def interface(self, device: int, direction: Direction) -> str:
        """Return the name of the interface at which a direction is shaped."""
        ...

    def flush(self, device: int) -> None:
        """Empty the queues of a closed link."""
        ...


class GateNudger:
    """Has a gate look at its queue again, see :mod:`fadelab_emulation.backends.nudge`.

    No address need be known behind the interface: the nudge is a frame, handed to the interface
    itself, of a priority that the shaper has no room for. To be made in its namespace.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_PRIORITY, topology.SHAPER)

    def nudge(self, interface: str) -> None:
        """Run the queue of an interface."""
        # The kernel tells that the frame was dropped; it always is.
        with contextlib.suppress(OSError):
            self._socket.sendto(_NUDGE, (interface, _ETH_P_EXPERIMENT, 0, 0, bytes(6)))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class AttachedHold:
    """Packets wait in both queues, those that arrive in the IFB's."""

    settings: tuple[Setting, ...] = ()

    def __init__(self, links: OneSidedLinks) -> None:
        self._links = links
        self._nudgers = [namespace.run(GateNudger) for namespace in links.namespaces]

    def open(self, device: int) -> None:
        """Open both gates and have them look at their queues at once."""
        for direction in Direction:
            _set_gate(self._links, device, direction, _gate_open)
            self._nudgers[device].nudge(self._links.interface(device, direction))

    def close(self, device: int) -> None:
        """Close both gates."""
        for direction in Direction:
            _set_gate(self._links, device, direction, topology.gate_closed)

    def renew(self, device: int) -> None:
        """Do nothing: attached links are not made anew."""

    def passed(self, devices: Sequence[int]) -> list[Passed]:
        """Return how many packets crossed the link."""
        return crossed(self._links, devices)

    def release(self) -> None:
        """Close the nudging sockets."""
        for nudger in self._nudgers:
            nudger.close()


class AttachedDrop:
    """Packets vanish in front of both queues, and what is in the queues with them.

    A sender is not told (its packets are stolen, not dropped: TCP would take that for its own
    queue being full); other than on a link of ours it is not slowed down either.
    """

    settings: tuple[Setting, ...] = ()

    def __init__(self, links: OneSidedLinks) -> None:
        self._links = links
        for device in range(len(links.namespaces)):
            self._judge(device, is_open=False)

    def open(self, device: int) -> None:
        """Empty both queues and let packets pass."""
        self._links.flush(device)
        for direction in Direction:
            _set_gate(self._links, device, direction, _gate_open)
        self._judge(device, is_open=True)

    def close(self, device: int) -> None:
        """Close both gates at once, and have what comes vanish."""
        for direction in Direction:
            _set_gate(self._links, device, direction, topology.gate_closed)
        self._judge(device, is_open=False)

    def renew(self, device: int) -> None:
        """Do nothing: attached links are not made anew."""

    def passed(self, devices: Sequence[int]) -> list[Passed]:
        """Return how many packets crossed the link."""
        return crossed(self._links, devices)

    def release(self) -> None:
        """Release nothing: filters are removed with their hooks."""

    def _judge(self, device: int, *, is_open: bool) -> None:
        netlink, index = self._links.sender(device, Direction.UP)
        program = _LET_ALL_GO_ON if is_open else _STEAL_ALL
        netlink.change(
            [
                filters.set_ingress_filter(
                    index, _PRIORITY, program, name="window", protocol=filters.ETH_P_ALL, hook=hook
                )
                for hook in (filters.INGRESS_HOOK, filters.EGRESS_HOOK)
            ]
        )


def _gate_open(index: int) -> bytes:
    return traffic.open_tbf(
        index, topology.GATE, rate_bps=traffic.MAX_RATE_BPS, burst_bytes=_OPEN_BUCKET_BYTES
    )


def _set_gate(
    links: OneSidedLinks, device: int, direction: Direction, state: Callable[[int], bytes]
) -> None:
    netlink, index = links.sender(device, direction)
    netlink.change([traffic.change_tbf(state(index))])
