"""TUN interfaces: what a process writes to one arrives there as a received IPv4 packet."""

import fcntl
import os
import struct
from pathlib import Path

from fadelab_emulation.netlink.links import (
    IFLA_GSO_MAX_SEGS,
    IFLA_MTU,
    IFLA_TXQLEN,
    RTM_NEWLINK,
)
from fadelab_emulation.netlink.message import CHANGE, Request, unsigned

TUN_PATH = Path("/dev/net/tun")

# linux/if_tun.h; the values are those of the machines with 32-bit ``int`` and the common _IOW.
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETIFINDEX = 0x400454DA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFREQ = struct.Struct("=16sH22x")

_IFF_UP = 1
_IFINFO = struct.Struct("=BBHiII")
_MTU_BYTES = 1500
_RING_PACKETS = 1000
"""Packets wait here for the relay to wake up; the queue that belongs to the link is the relay's."""


def open_tun(name: str, index: int, path: Path = TUN_PATH) -> int:
    """Make a TUN interface in this thread's network namespace and return its descriptor.

    It carries bare IPv4 packets without offloads (whole checksums, one packet per read), does not
    block, and vanishes when the descriptor's last copy is closed.

    Raises:
        OSError: says whether the TUN device could not be opened or made no interface.

    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(
            error.errno, f"the TUN device {path} cannot be opened: {error.strerror}"
        ) from error
    try:
        fcntl.ioctl(descriptor, _TUNSETIFINDEX, struct.pack("=I", index))
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, 0)
    except OSError as error:
        os.close(descriptor)
        raise OSError(
            error.errno, f"the TUN device {path} makes no interface {name}: {error.strerror}"
        ) from error
    return descriptor


def bring_up(index: int) -> Request:
    """Bring a TUN interface up: Ethernet's MTU, one segment per packet, a deep ring."""
    body = (
        _IFINFO.pack(0, 0, 0, index, _IFF_UP, _IFF_UP)
        + unsigned(IFLA_MTU, _MTU_BYTES)
        + unsigned(IFLA_TXQLEN, _RING_PACKETS)
        + unsigned(IFLA_GSO_MAX_SEGS, 1)
    )
    return Request(f"bring TUN interface {index} up", RTM_NEWLINK, CHANGE, body)
