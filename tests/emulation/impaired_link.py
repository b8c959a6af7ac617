"""A bare veth link whose arriving packets an impairment befalls, and packets to send over it."""

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fadelab_emulation.backends.impairment.base import (
    Arrivals,
    Direction,
    Impairment,
    LaneLoss,
    Port,
    PortState,
)
from fadelab_emulation.namespaces import NetworkNamespace, create_namespaces
from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.filters import add_ingress_hook
from fadelab_emulation.netlink.message import NetlinkSocket

HUB_ADDRESS, DEVICE_ADDRESS = "10.77.0.1", "10.77.1.1"
HUB_INDEX, DEVICE_INDEX = 16, 2
NO_LOSS = LaneLoss(0.0, 0.0, 0.0, 1.0)
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_UDP_SEGMENT = 103
_NUMBER = struct.Struct("<Id")
_SEGMENTS = 50
_SEGMENT_BYTES = struct.pack("=H", _NUMBER.size)


def independent(probability: float) -> LaneLoss:
    return LaneLoss(probability, probability, 0.0, 1.0)


def _receive_option() -> int:
    """Return the option that sets a receive buffer beyond the system's limit, for root."""
    with Path("/proc/self/uid_map").open() as uid_map:
        whole_machine = uid_map.read().split()[-1] == str(0xFFFFFFFF)
    return _SO_RCVBUFFORCE if whole_machine else socket.SO_RCVBUF


class ImpairedLink:
    """Device 0's link, unshaped; the impairment is prepared at both of its ends."""

    def __init__(self, impairment: Impairment) -> None:
        self.impairment = impairment
        self.hub = NetlinkSocket()
        self.namespace: NetworkNamespace = create_namespaces(1, lambda: None)[0][0]
        here = links.VethEnd("fl0", HUB_INDEX, bytes.fromhex("02fade000000"))
        there = links.VethEnd("eth0", DEVICE_INDEX, bytes.fromhex("02fade010000"))
        self.hub.change(
            [
                links.set_up(links.LOOPBACK_INDEX),
                links.add_address(links.LOOPBACK_INDEX, HUB_ADDRESS),
                links.create_veth(here, there, self.namespace.descriptor),
                links.add_neighbour(HUB_INDEX, DEVICE_ADDRESS, there.mac),
                links.add_route(HUB_INDEX, DEVICE_ADDRESS, HUB_ADDRESS),
                add_ingress_hook(HUB_INDEX),
            ]
        )
        self.namespace.netlink.change(
            [
                links.set_up(links.LOOPBACK_INDEX),
                links.set_up(DEVICE_INDEX),
                links.add_address(DEVICE_INDEX, DEVICE_ADDRESS),
                links.add_neighbour(DEVICE_INDEX, HUB_ADDRESS, here.mac),
                links.add_route(DEVICE_INDEX, HUB_ADDRESS, DEVICE_ADDRESS),
                add_ingress_hook(DEVICE_INDEX),
            ]
        )
        self.ports = {
            Direction.UP: Port(0, Direction.UP, self.hub, HUB_INDEX),
            Direction.DOWN: Port(0, Direction.DOWN, self.namespace.netlink, DEVICE_INDEX),
        }
        for port in self.ports.values():
            port.netlink.change(impairment.prepare(port))

    def set(
        self,
        *losses: LaneLoss,
        direction: Direction = Direction.UP,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
    ) -> None:
        port = self.ports[direction]
        state = PortState(losses or (NO_LOSS,), delay_s, jitter_s)
        port.netlink.change(self.impairment.change(port, state))

    def read(self, direction: Direction = Direction.UP) -> Arrivals:
        return self.impairment.read([self.ports[direction]])[0]


class Datagrams:
    """Numbered datagrams in one direction, of one class."""

    def __init__(
        self,
        link: ImpairedLink,
        direction: Direction = Direction.UP,
        *,
        port: int = 0,
        from_port: int = 0,
        dscp: int = 0,
    ) -> None:
        self._link, self._direction = link, direction

        def open_socket() -> socket.socket:
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        at_hub, at_device = open_socket(), link.namespace.run(open_socket)
        up = direction is Direction.UP
        self._sender, self._receiver = (at_device, at_hub) if up else (at_hub, at_device)
        here, there = (DEVICE_ADDRESS, HUB_ADDRESS) if up else (HUB_ADDRESS, DEVICE_ADDRESS)
        self._receiver.setsockopt(socket.SOL_SOCKET, _receive_option(), 1 << 25)
        self._receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._receiver.bind((there, port))
        self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        self._sender.bind((here, from_port))
        self._sender.connect(self._receiver.getsockname())

    def set_options(self, options: bytes) -> None:
        """Put IP options before the payload of what is sent from now on."""
        self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()

    def send(self, numbers: Sequence[int]) -> None:
        """Send packets back to back: many to one system call, taken apart before the link."""
        for first in range(0, len(numbers), _SEGMENTS):
            batch = numbers[first : first + _SEGMENTS]
            data = b"".join(_NUMBER.pack(number, 0.0) for number in batch)
            self._sender.sendmsg([data], [(socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT_BYTES)])

    def send_large(self, count: int, payload_bytes: int) -> None:
        """Send packets that are too large for one frame."""
        for number in range(count):
            self._sender.send(_NUMBER.pack(number, 0.0).ljust(payload_bytes, b"\0"))

    def receive(self, patience_s: float) -> list[int]:
        """Return the numbers of what has arrived, in order, until nothing comes that long."""
        return [number for number, _ in self._arrived(patience_s)]

    def fates(self, count: int) -> NDArray[np.bool_]:
        """Send packets and return which of them were lost."""
        lost = np.ones(count, dtype=np.bool_)
        judged = self._link.read(self._direction).arrived_packets + count
        for first in range(0, count, _SEGMENTS):
            self.send(range(first, min(first + _SEGMENTS, count)))
            lost[self.receive(0.0)] = False
        # A busy machine may take its time over the last ones; the sandbox has its own limit.
        while self._link.read(self._direction).arrived_packets < judged:
            lost[self.receive(0.02)] = False
        lost[self.receive(0.1)] = False
        return lost

    def delays_s(self, count: int, gap_s: float) -> tuple[list[int], NDArray[np.float64]]:
        """Send packets ``gap_s`` apart; return their numbers as they came, and their delays."""
        found: list[tuple[int, float]] = []
        for number in range(count):
            self._sender.send(_NUMBER.pack(number, time.clock_gettime(time.CLOCK_REALTIME)))
            if gap_s:
                time.sleep(gap_s)
            found += self._arrived(0.0)
        while len(found) < count and (late := list(self._arrived(1.0))):
            found += late
        return [number for number, _ in found], np.array([delay_s for _, delay_s in found])

    def _arrived(self, patience_s: float) -> Iterator[tuple[int, float]]:
        """Yield number and delay of what has arrived and arrives in the next ``patience_s``."""
        self._receiver.settimeout(patience_s)
        while True:
            try:
                data, ancillary, _, _ = self._receiver.recvmsg(64, 64)
            except (BlockingIOError, TimeoutError):
                return
            number, sent_s = _NUMBER.unpack_from(data)
            seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2])
            yield number, seconds + nanoseconds * 1e-9 - sent_s
