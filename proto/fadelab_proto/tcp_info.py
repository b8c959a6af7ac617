"""What the kernel knows about this process's TCP connections (``struct tcp_info``, linux/tcp.h).

gRPC keeps its sockets to itself, but a process may look at its own descriptors: each is duplicated
for the moment of the query, so gRPC's own is never touched.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TCP_INFO_BYTES = 232
# tcpi_options, tcpi_segs_out, and tcpi_bytes_sent with tcpi_bytes_retrans: all since Linux 4.19.
_FIGURES = struct.Struct("=5xB130xI60xQQ")
_HAS_TIMESTAMPS = 1
"""TCPI_OPT_TIMESTAMPS."""
_HEADERS_BYTES = 20 + 20
"""IPv4 (RFC 791) and TCP (RFC 9293) without options."""
_TIMESTAMPS_BYTES = 12
"""The timestamps option (RFC 7323) and its padding, in every segment once agreed upon."""
_SOCKADDR_BYTES = 16
_INTERNET = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class TcpCounters:
    """What connections have sent."""

    bytes_sent: int
    """Payload, with what was sent again."""
    bytes_retransmitted: int
    """Payload that was sent again."""
    segments_sent: int
    """Segments of all kinds: data, repeated data, acknowledgements alone, SYN and FIN."""
    header_bytes: int
    """IPv4 and TCP headers of those segments. Of the options timestamps alone are counted: those
    of a SYN (8 bytes more) and selective acknowledgements are not."""

    def __add__(self, other: "TcpCounters") -> "TcpCounters":
        return TcpCounters(
            self.bytes_sent + other.bytes_sent,
            self.bytes_retransmitted + other.bytes_retransmitted,
            self.segments_sent + other.segments_sent,
            self.header_bytes + other.header_bytes,
        )

    def event_fields(self, prefix: str = "") -> dict[str, int]:
        """Return the counters as events tell them, each name behind the prefix."""
        return {
            f"{prefix}tcp_bytes": self.bytes_sent,
            f"{prefix}tcp_retransmitted_bytes": self.bytes_retransmitted,
            f"{prefix}tcp_segments": self.segments_sent,
            f"{prefix}tcp_header_bytes": self.header_bytes,
        }


NOTHING_SENT = TcpCounters(0, 0, 0, 0)


def parse_tcp_info(info: bytes) -> TcpCounters | None:
    """Return what the kernel's ``struct tcp_info`` says was sent; None before Linux 4.19."""
    if len(info) < _FIGURES.size:
        return None
    options, segments, sent, retransmitted = _FIGURES.unpack_from(info)
    header = _HEADERS_BYTES + (_TIMESTAMPS_BYTES if options & _HAS_TIMESTAMPS else 0)
    return TcpCounters(sent, retransmitted, segments, segments * header)


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
            sums[remote] = sums.get(remote, NOTHING_SENT) + counters
        return sums

    def total(self) -> TcpCounters:
        """Return the sum over all connections."""
        return sum(self._latest.values(), NOTHING_SENT)

    def _read(self, connection: socket.socket) -> None:
        local, remote = connection.getsockname(), connection.getpeername()
        counters = _counters(connection)
        if counters is not None:
            address = remote[0].removeprefix("::ffff:")
            self._latest[local[0], local[1], address, remote[1]] = counters


def hang_up() -> None:
    """Shut down every TCP connection of this process, also those whose peer cannot be reached.

    A server whose devices are out of contact would otherwise wait for them until TCP gives up.
    """
    _for_each_connection(lambda connection: connection.shutdown(socket.SHUT_RDWR))


def abort(dscp: int) -> TcpCounters:
    """Break off this process's TCP connections whose packets carry ``dscp``; unsent data is dropped.

    Closing a connection sends what waits in its buffers first, which on a slow link goes on for
    seconds. Connecting a socket to no address resets it at once (connect(2), AF_UNSPEC); gRPC makes
    a new connection at the next call.

    Returns:
        What those connections have sent. The kernel forgets it with the reset: nobody who looks
        from outside can count it any more.

    """
    libc = ctypes.CDLL(None, use_errno=True)
    nowhere = bytes(_SOCKADDR_BYTES)  # the family AF_UNSPEC is 0
    sent: list[TcpCounters] = []

    def reset(connection: socket.socket) -> None:
        if _traffic_class(connection) >> 2 == dscp:
            sent.append(_counters(connection) or NOTHING_SENT)
            libc.connect(connection.fileno(), nowhere, _SOCKADDR_BYTES)

    _for_each_connection(reset)
    return sum(sent, NOTHING_SENT)


def _counters(connection: socket.socket) -> TcpCounters | None:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return parse_tcp_info(info)


def _traffic_class(connection: socket.socket) -> int:
    if connection.family == socket.AF_INET6:
        return connection.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
    return connection.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)


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
