"""Messages for links, addresses, routes and neighbours, and the interface counters."""

import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple

from fadelab_emulation.netlink.message import (
    CHANGE,
    CREATE,
    CREATE_OR_REPLACE,
    Request,
    attribute,
    attributes,
    find_attribute,
    nested,
    string,
    unsigned,
)

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_NEWROUTE = 24
RTM_NEWNEIGH = 28
RTM_GETSTATS = 94

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_TXQLEN = 13
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_NET_NS_FD = 28
IFLA_NUM_TX_QUEUES = 31
IFLA_NUM_RX_QUEUES = 32
IFLA_GSO_MAX_SEGS = 40
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_VETH_INFO_PEER = 1
_IFLA_STATS_LINK_64 = 1

_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_PREFSRC = 1, 4, 7
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 4, 253, 1
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80

_IFINFO = struct.Struct("=BBHiII")
_STATS_REQUEST = struct.Struct("=BBHII")
_RTNL_LINK_STATS64 = struct.Struct("=8Q")
_ETHERNET_MTU = 1500
_QUEUE_PACKETS = 1000
"""Room in HTB's direct queue and the like; the queue that shapes is counted in bytes."""

LOOPBACK_INDEX = 1


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a veth pair."""

    name: str
    index: int
    mac: bytes
    """Six bytes."""

    def attributes(self) -> bytes:
        """Return the attributes both ends have.

        One queue each (a veth otherwise reserves one per processor); one segment per packet, so
        that shaper, queue and loss see real packets and no 64 KiB bundles.
        """
        return b"".join(
            (
                string(IFLA_IFNAME, self.name),
                attribute(IFLA_ADDRESS, self.mac),
                unsigned(IFLA_MTU, _ETHERNET_MTU),
                unsigned(IFLA_TXQLEN, _QUEUE_PACKETS),
                unsigned(IFLA_NUM_TX_QUEUES, 1),
                unsigned(IFLA_NUM_RX_QUEUES, 1),
                unsigned(IFLA_GSO_MAX_SEGS, 1),
            )
        )


def create_veth(here: VethEnd, there: VethEnd, namespace_fd: int) -> Request:
    """Make a veth pair: ``here`` is up in this namespace, ``there`` down in the other one."""
    peer = (
        _IFINFO.pack(0, 0, 0, there.index, 0, 0)
        + there.attributes()
        + unsigned(IFLA_NET_NS_FD, namespace_fd)
    )
    info = nested(
        IFLA_LINKINFO,
        string(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, peer)),
    )
    body = _IFINFO.pack(0, 0, 0, here.index, _IFF_UP, _IFF_UP) + here.attributes() + info
    return Request(f"create veth {here.name}", RTM_NEWLINK, CREATE, body)


def set_up(index: int) -> Request:
    """Bring an interface up."""
    body = _IFINFO.pack(0, 0, 0, index, _IFF_UP, _IFF_UP)
    return Request(f"bring interface {index} up", RTM_NEWLINK, CHANGE, body)


def set_down(index: int) -> Request:
    """Take an interface down; it loses its routes and neighbours and keeps its addresses."""
    body = _IFINFO.pack(0, 0, 0, index, 0, _IFF_UP)
    return Request(f"take interface {index} down", RTM_NEWLINK, CHANGE, body)


def delete_link(index: int) -> Request:
    """Remove an interface, and with a veth its other end."""
    return Request(f"delete interface {index}", RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0))


def set_alias(index: int, alias: str) -> Request:
    """Give an interface a free text of up to 255 bytes."""
    body = _IFINFO.pack(0, 0, 0, index, 0, 0) + attribute(IFLA_IFALIAS, alias.encode())
    return Request(f"set the alias of interface {index}", RTM_NEWLINK, CHANGE, body)


def read_link(index: int = 0) -> Request:
    """Ask for the description of one interface, or (0, to be dumped) of all."""
    return Request(f"read interface {index}", RTM_GETLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0))


class Description(NamedTuple):
    """What an interface is called."""

    interface: int
    name: str
    alias: str


def parse_link(body: bytes) -> Description:
    """Decode the answer to :func:`read_link`."""
    texts = {
        kind: payload.rstrip(b"\0").decode(errors="replace")
        for kind, payload in attributes(body, _IFINFO.size)
        if kind in {IFLA_IFNAME, IFLA_IFALIAS}
    }
    interface = _IFINFO.unpack_from(body)[3]
    return Description(interface, texts.get(IFLA_IFNAME, ""), texts.get(IFLA_IFALIAS, ""))


def add_address(index: int, address: str) -> Request:
    """Give an interface the IPv4 ``address`` with prefix length 32."""
    packed = socket.inet_aton(address)
    body = (
        struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, index)
        + attribute(_IFA_LOCAL, packed)
        + attribute(_IFA_ADDRESS, packed)
    )
    return Request(f"add address {address}", RTM_NEWADDR, CREATE_OR_REPLACE, body)


def add_route(index: int, destination: str, source: str) -> Request:
    """Send packets for one host out of an interface, from the local address ``source``."""
    header = struct.pack(
        "=BBBBBBBBI",
        socket.AF_INET,
        32,
        0,
        0,
        _RT_TABLE_MAIN,
        _RTPROT_STATIC,
        _RT_SCOPE_LINK,
        _RTN_UNICAST,
        0,
    )
    body = (
        header
        + attribute(_RTA_DST, socket.inet_aton(destination))
        + attribute(_RTA_PREFSRC, socket.inet_aton(source))
        + unsigned(_RTA_OIF, index)
    )
    return Request(f"add route to {destination}", RTM_NEWROUTE, CREATE_OR_REPLACE, body)


def add_neighbour(index: int, address: str, mac: bytes) -> Request:
    """Fix the hardware address of a neighbour for good, so that no ARP frame is ever needed."""
    body = (
        struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, index, _NUD_PERMANENT, 0, 0)
        + attribute(_NDA_DST, socket.inet_aton(address))
        + attribute(_NDA_LLADDR, mac)
    )
    return Request(f"add neighbour {address}", RTM_NEWNEIGH, CREATE_OR_REPLACE, body)


class InterfaceCounters(NamedTuple):
    """An interface's 64-bit counters; bytes are layer-2 bytes."""

    interface: int
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int


def read_counters(index: int = 0) -> Request:
    """Ask for the counters of one interface, or (0, to be dumped) of all."""
    body = _STATS_REQUEST.pack(0, 0, 0, index, 1 << (_IFLA_STATS_LINK_64 - 1))
    return Request(f"read the counters of interface {index}", RTM_GETSTATS, 0, body)


def parse_counters(body: bytes) -> InterfaceCounters:
    """Decode the answer to :func:`read_counters`."""
    index = _STATS_REQUEST.unpack_from(body)[3]
    at = find_attribute(body, _STATS_REQUEST.size, _IFLA_STATS_LINK_64)
    return InterfaceCounters(index, *_RTNL_LINK_STATS64.unpack_from(body, at)[:4])
