"""What the kernel knows about this process's TCP connections (``struct tcp_info``, linux/tcp.h).

gRPC keeps its sockets to itself, but a process may look at its own descriptors: each is duplicated
for the moment of the query, so gRPC's own is never touched.
"""

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TCP_INFO_BYTES = 232
# Offsets of tcpi_bytes_sent and tcpi_bytes_retrans, in the kernel since 4.19.
_SENT_AND_RETRANS = struct.Struct("<QQ")
_SENT_AT = 200
_INTERNET = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class TcpCounters:
    """Payload bytes that TCP sent, and how many of them were sent again."""

    bytes_sent: int
    bytes_retransmitted: int

    def __add__(self, other: "TcpCounters") -> "TcpCounters":
        return TcpCounters(
            self.bytes_sent + other.bytes_sent,
            self.bytes_retransmitted + other.bytes_retransmitted,
        )


class TcpLedger:
    """Counters of every TCP connection this process has had, by remote address.

    A closed connection's counters are gone with it: call :meth:`update` before connections are
    closed and now and then in between; the last values seen are kept.
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[str, int, str, int], TcpCounters] = {}

    def update(self) -> None:
        """Read the counters of all open connections."""
        _for_each_connection(self._read)

    def by_remote(self) -> dict[str, TcpCounters]:
        """Return the sums by remote IP address."""
        sums: dict[str, TcpCounters] = {}
        for (_, _, remote, _), counters in self._latest.items():
            sums[remote] = sums.get(remote, TcpCounters(0, 0)) + counters
        return sums

    def total(self) -> TcpCounters:
        """Return the sum over all connections."""
        return sum(self._latest.values(), TcpCounters(0, 0))

    def _read(self, connection: socket.socket) -> None:
        local, remote = connection.getsockname(), connection.getpeername()
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(info) < _SENT_AT + _SENT_AND_RETRANS.size:
            return
        sent, retransmitted = _SENT_AND_RETRANS.unpack_from(info, _SENT_AT)
        address = remote[0].removeprefix("::ffff:")
        self._latest[local[0], local[1], address, remote[1]] = TcpCounters(sent, retransmitted)


def hang_up() -> None:
    """Shut down every TCP connection of this process, also those whose peer cannot be reached.

    A server whose devices are out of contact would otherwise wait for them until TCP gives up.
    """
    _for_each_connection(lambda connection: connection.shutdown(socket.SHUT_RDWR))


def _for_each_connection(action: Callable[[socket.socket], None]) -> None:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as duplicate:
                if _is_tcp(duplicate) and not _listens(duplicate):
                    action(duplicate)
        except OSError:
            # It was closed between the listing and the action.
            continue


def _is_tcp(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and sock.family in _INTERNET


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
