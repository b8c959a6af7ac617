"""Messages about TCP connections (``sock_diag(7)``, net/ipv4/inet_diag.c)."""

import socket
import struct
from typing import NamedTuple

from fadelab_emulation.netlink.message import Request, attributes
from fadelab_proto.tcp_info import TcpCounters, parse_tcp_info

DESTROYED_GROUPS = (1, 3)
"""The kernel tells these of every TCP connection that is gone for good, over IPv4 and over sockets
of IPv6 (SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY, Linux 4.2)."""
FAMILIES = (socket.AF_INET, socket.AF_INET6)

_SOCK_DIAG_BY_FAMILY = 20
_INET_DIAG_INFO = 2
_REQUEST = struct.Struct("=BBBxI48x")
_MESSAGE = struct.Struct("=B3x2H16s16sI8s20x")
_HAVE_FIGURES = sum(1 << state for state in (1, 2, 4, 5, 7, 8, 9, 11))
"""All states but SYN_RECV, TIME_WAIT and LISTEN, which have no ``struct tcp_info`` or no peer."""
_MAPPED = bytes(10) + b"\\xff\\xff"


class TcpConnection(NamedTuple):
    """One connection, alive or gone."""

    cookie: bytes
    """The kernel's name for it, never used twice."""
    remote: str
    """The other end's IPv4 address."""
    sent: TcpCounters


def list_connections(family: socket.AddressFamily) -> Request:
    """Ask (to be dumped) for the connections of a namespace and their ``struct tcp_info``."""
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), _HAVE_FIGURES)
    return Request("list TCP connections", _SOCK_DIAG_BY_FAMILY, 0, body)


def parse_connection(body: bytes) -> TcpConnection | None:
    """Decode one answer, or one message to the groups; None if it is not of an IPv4 connection."""
    family, _, _, _, destination, _, cookie = _MESSAGE.unpack_from(body)
    if family == socket.AF_INET:
        address = destination[:4]
    elif destination.startswith(_MAPPED):
        address = destination[12:]
    else:
        return None
    info = dict(attributes(body, _MESSAGE.size)).get(_INET_DIAG_INFO, b"")
    sent = parse_tcp_info(info)
    return None if sent is None else TcpConnection(cookie, socket.inet_ntoa(address), sent)
