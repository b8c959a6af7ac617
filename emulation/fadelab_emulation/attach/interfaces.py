"""What interfaces and queueing disciplines there are in a namespace, and messages to undo ours."""

import struct
from dataclasses import dataclass

from fadelab_emulation.netlink.filters import CLSACT_HANDLE, TC_H_CLSACT
from fadelab_emulation.netlink.links import (
    IFLA_GSO_MAX_SEGS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_MTU,
    IFLA_TXQLEN,
    RTM_NEWLINK,
    read_link,
)
from fadelab_emulation.netlink.message import (
    CHANGE,
    NetlinkSocket,
    Request,
    attributes,
    unsigned,
)
from fadelab_emulation.netlink.traffic import (
    RTM_DELQDISC,
    RTM_GETQDISC,
    TC_H_ROOT,
    TCA_KIND,
    TCMSG,
)

_IFINFO = struct.Struct("=BBHiII")
_WORD = struct.Struct("=I")
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as the kernel describes it."""

    index: int
    name: str
    alias: str
    mtu_bytes: int
    queue_packets: int
    """The length of its transmission queue (txqueuelen)."""
    bundled_frames: int
    """How many frames a packet that is sent may hold, to be cut later (gso_max_segs)."""
    is_loopback: bool
    is_up: bool


@dataclass(frozen=True, slots=True)
class Discipline:
    """A queueing discipline. Those that the kernel installs by itself have no handle."""

    kind: str
    handle: int
    parent: int

    @property
    def is_kernels(self) -> bool:
        """Whether the kernel chose it: it comes back by itself when another is removed."""
        return self.handle == 0


def list_interfaces(netlink: NetlinkSocket) -> list[Interface]:
    """Return all interfaces of the socket's namespace."""
    return [_interface(answer) for answer in netlink.dump(read_link())]


def list_disciplines(netlink: NetlinkSocket, index: int) -> list[Discipline]:
    """Return all queueing disciplines of an interface, hooks for filters included."""
    asked = Request(
        "list queueing disciplines", RTM_GETQDISC, 0, TCMSG.pack(0, 0, 0, index, 0, 0, 0)
    )
    return [_discipline(answer) for answer in netlink.dump(asked) if _index(answer) == index]


def set_queue_packets(index: int, packets: int) -> Request:
    """Set the length of an interface's transmission queue."""
    body = _IFINFO.pack(0, 0, 0, index, 0, 0) + unsigned(IFLA_TXQLEN, packets)
    return Request(f"restore the queue length of interface {index}", RTM_NEWLINK, CHANGE, body)


def set_bundled_frames(index: int, frames: int) -> Request:
    """Set how many frames a packet that is sent on an interface may hold."""
    body = _IFINFO.pack(0, 0, 0, index, 0, 0) + unsigned(IFLA_GSO_MAX_SEGS, frames)
    operation = f"set how many frames a packet on interface {index} may hold"
    return Request(operation, RTM_NEWLINK, CHANGE, body)


def remove_shaper(index: int) -> Request:
    """Remove what was installed in place of an interface's own queueing discipline."""
    body = TCMSG.pack(0, 0, 0, index, 0, TC_H_ROOT, 0)
    return Request(f"remove the shaper of interface {index}", RTM_DELQDISC, 0, body)


def remove_hooks(index: int) -> Request:
    """Remove the hooks for filters (clsact) and all filters with them."""
    body = TCMSG.pack(0, 0, 0, index, CLSACT_HANDLE, TC_H_CLSACT, 0)
    return Request(f"remove the filters of interface {index}", RTM_DELQDISC, 0, body)


def _interface(body: bytes) -> Interface:
    _, _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = dict(attributes(body, _IFINFO.size))
    return Interface(
        index=index,
        name=_text(found.get(IFLA_IFNAME, b"")),
        alias=_text(found.get(IFLA_IFALIAS, b"")),
        mtu_bytes=_WORD.unpack(found[IFLA_MTU])[0],
        queue_packets=_WORD.unpack(found[IFLA_TXQLEN])[0],
        bundled_frames=_WORD.unpack(found[IFLA_GSO_MAX_SEGS])[0],
        is_loopback=bool(flags & _IFF_LOOPBACK),
        is_up=bool(flags & _IFF_UP),
    )


def _discipline(body: bytes) -> Discipline:
    _, _, _, _, handle, parent, _ = TCMSG.unpack_from(body)
    found = dict(attributes(body, TCMSG.size))
    return Discipline(_text(found[TCA_KIND]), handle, parent)


def _index(body: bytes) -> int:
    return int(TCMSG.unpack_from(body)[3])


def _text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")
