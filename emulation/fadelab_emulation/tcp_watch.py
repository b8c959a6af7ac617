"""What every TCP connection over the links has sent, by the kernel's own account.

The processes at the ends are not asked: they may be killed at any moment, and gRPC keeps its
sockets to itself. Instead the kernel tells of each connection that is gone for good what it has
sent (as ``ss --events`` shows it), and of those that are left when it is asked.
"""

import contextlib
import errno
import selectors
import socket
from collections.abc import Callable, Sequence

from fadelab_emulation.namespaces import NetworkNamespace, run_in_each
from fadelab_emulation.netlink.message import NETLINK_SOCK_DIAG, NetlinkError, NetlinkSocket
from fadelab_emulation.netlink.tcp_diag import (
    DESTROYED_GROUPS,
    FAMILIES,
    TcpConnection,
    list_connections,
    parse_connection,
)
from fadelab_proto.tcp_info import NOTHING_SENT, TcpCounters

_SYN = TcpCounters(0, 0, 0, 8)
"""What the options of a SYN have more than those of other segments."""
_SYN_ACK = TcpCounters(0, 0, 1, 60)
"""The kernel counts a SYN-ACK to a request and not to the connection that comes of it."""


class TcpWatch:
    """Counts in the server's namespace, which is the calling thread's, and in every device's.

    To be made before the first connection; one thread at a time may use it.

    Args:
        namespaces: the devices'.
        addresses: the devices' IPv4 addresses, as the server sees them.

    Raises:
        OSError: if this kernel does not tell of connections.

    """

    def __init__(self, namespaces: Sequence[NetworkNamespace], addresses: Sequence[str]) -> None:
        self._devices = {address: device for device, address in enumerate(addresses)}
        self.is_complete = True
        """False once the kernel had more to tell than there was room for."""
        self._selector = selectors.DefaultSelector()
        # Where the kernel does not tell, the first one fails: no other is left open.
        self._hub = self._heed(_Place())
        self._of_device = [[self._heed(place)] for place in run_in_each(namespaces, _Place)]

    def add(self, device: int, namespace: NetworkNamespace) -> None:
        """Heed one more namespace of a device, in which it goes on."""
        self._of_device[device].append(self._heed(namespace.run(_Place)))

    def _heed(self, place: "_Place") -> "_Place":
        self._selector.register(place.netlink, selectors.EVENT_READ, place)
        return place

    @property
    def _places(self) -> "list[_Place]":
        return [*(place for places in self._of_device for place in places), self._hub]

    def update(self) -> None:
        """Take in what the kernel has told of connections that are gone; never waits."""
        for key, _ in self._selector.select(0):
            self._hear(key.data.take_in)

    def sent(self) -> tuple[list[TcpCounters], list[TcpCounters]]:
        """Return what each device has sent, and what was sent to it, over all its connections.

        Connections that are still there are asked for, which takes under a millisecond for each
        device. One that both ends have shut down and a process has not closed is in neither list;
        to be sure, ask when the processes have ended.
        """
        for place in self._places:
            # What goes away meanwhile is in one of these, or in two under the same name.
            for ask in (place.take_in, place.list_all, place.take_in):
                self._hear(ask)
        up = [
            sum((c.sent + _SYN for place in places for c in place.connections), NOTHING_SENT)
            for places in self._of_device
        ]
        down = [NOTHING_SENT] * len(self._of_device)
        for connection in self._hub.connections:
            device = self._devices.get(connection.remote)
            if device is not None:
                down[device] += connection.sent + _SYN_ACK
        return up, down

    def connections(self, device: int) -> int:
        """Return how many connections a device has had, as far as they are known by now."""
        return sum(len(place.connections) for place in self._of_device[device])

    def close(self) -> None:
        """Close all sockets."""
        self._selector.close()
        for place in self._places:
            place.netlink.close()

    def _hear(self, ask: Callable[[], None]) -> None:
        try:
            ask()
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.is_complete = False


class _Place:
    """The connections of one namespace, that of the thread that makes it."""

    def __init__(self) -> None:
        self.netlink = NetlinkSocket(NETLINK_SOCK_DIAG)
        self._found: dict[bytes, TcpConnection] = {}
        try:
            self.netlink.dump(list_connections(socket.AF_INET))
            for group in DESTROYED_GROUPS:
                self.netlink.join(group)
        except BaseException:
            self.netlink.close()
            raise

    @property
    def connections(self) -> list[TcpConnection]:
        """What was heard last of each that has sent anything, to others than its own machine."""
        return [
            c
            for c in self._found.values()
            if c.sent.segments_sent and not c.remote.startswith("127.")
        ]

    def take_in(self) -> None:
        """Note connections that are gone. Raises OSError (ENOBUFS)."""
        self._note(self.netlink.unasked())

    def list_all(self) -> None:
        """Note connections that are there. Raises OSError (ENOBUFS)."""
        for family in FAMILIES:
            # A kernel without IPv6 has none of those.
            with contextlib.suppress(NetlinkError):
                self._note(self.netlink.dump(list_connections(family)))

    def _note(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            connection = parse_connection(message)
            if connection is not None:
                self._found[connection.cookie] = connection
