"""Datagrams through links, timed and counted by the kernel at their receiving end.

What a test's process sees itself is late by whatever else the machine does; the kernel's
timestamps and the interfaces' counters are not.
"""

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from sandboxed import address_of

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.backends.topology import DEVICE_INDEX, hub_index
from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.message import NetlinkSocket

FRAME_BITS = 8 * 1514
FULL_PAYLOAD_BYTES = 1472
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_TIMESPEC = struct.Struct("@ll")
_NUMBER = struct.Struct("<Id")
_ROOM_BYTES = 1 << 22
_PACE_S = 0.002
_UDP_SEGMENT = 103
_BATCH, _SEGMENTS = 200, 50


def now_s() -> float:
    """Return the time by the clock with which the kernel stamps packets."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def per_second(
    at_s: Sequence[float], total: Sequence[float], start_s: float, seconds: int
) -> FloatArray:
    """Return how fast a total grew in each second from ``start_s`` on.

    The last sample by each second's end stands for it, with the time that it really has.
    """
    edges = np.searchsorted(at_s, start_s + np.arange(seconds + 1), side="right") - 1
    rates: FloatArray = np.diff(np.array(total)[edges]) / np.diff(np.array(at_s)[edges])
    return rates


class Arrival(NamedTuple):
    """A datagram that came through."""

    number: int
    sent_s: float
    arrived_s: float


class Datagrams:
    """A flow of numbered datagrams in one direction of a device's link.

    Args:
        together: how many full datagrams the kernel cuts out of one piece, of which the first has
            a number: a slow machine can send more of them. Only interfaces tell them apart.

    """

    def __init__(
        self,
        backend: LinkBackend,
        device: int,
        direction: Direction,
        *,
        port: int = 0,
        dscp: int = 0,
        payload_bytes: int = FULL_PAYLOAD_BYTES,
        together: int = 1,
    ) -> None:
        at_hub, at_device = _open(), backend.namespaces[device].run(_open)
        up = direction is Direction.UP
        self._sender, self.receiver = (at_device, at_hub) if up else (at_hub, at_device)
        for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):
            with contextlib.suppress(PermissionError):
                self.receiver.setsockopt(socket.SOL_SOCKET, option, _ROOM_BYTES)
        stamp_arrivals(self.receiver)
        self.receiver.bind((backend.server_address if up else address_of(backend, device), port))
        self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        self._sender.connect(self.receiver.getsockname())
        self._padding = bytes(together * payload_bytes - _NUMBER.size)
        self.frames = together
        """How many frames each piece becomes."""
        if together > 1:
            self._sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, payload_bytes)
        self._backend, self._device, self._direction = backend, device, direction
        self.sent = 0

    def send(self, packets: int = 1) -> None:
        """Send the next ones; fewer if there is no room for them."""
        for _ in range(packets):
            try:
                self._sender.send(_NUMBER.pack(self.sent, now_s()) + self._padding)
            except OSError:
                return
            self.sent += 1

    def drain(self) -> list[Arrival]:
        """Return what has arrived since the last time."""
        found = []
        while True:
            try:
                data, ancillary, _, _ = self.receiver.recvmsg(_NUMBER.size, 64)
            except BlockingIOError:
                return found
            number, sent_s = _NUMBER.unpack(data)
            found.append(Arrival(number, sent_s, stamp_s(ancillary)))

    def fates(self, packets: int) -> BoolArray:
        """Send packets and return which of them were lost, shape ``(packets,)``.

        No queue may overflow: the back-end's count of packets at the point where losses are drawn
        says how many are still in front of it. The link must have had a loss from its opening on.
        """
        lost = np.ones(packets, dtype=np.bool_)
        start = self._judged()
        size = _NUMBER.size + len(self._padding)
        with contextlib.suppress(OSError):
            self._sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, size)
        for first in range(0, packets, _BATCH):
            numbers = range(first, min(first + _BATCH, packets))
            for some in (numbers[at : at + _SEGMENTS] for at in range(0, len(numbers), _SEGMENTS)):
                self._send_together(some)
            self._await(start + numbers.stop - _BATCH // 2)
            lost[self._received()] = False
        self._await(start + packets)
        time.sleep(0.1)
        lost[self._received()] = False
        return lost

    def _send_together(self, numbers: range) -> None:
        """Have the kernel cut datagrams out of one piece, where it can: it saves system calls."""
        datagrams = [_NUMBER.pack(number, 0.0) + self._padding for number in numbers]
        try:
            self._sender.send(b"".join(datagrams))
        except OSError:
            for datagram in datagrams:
                self._sender.send(datagram)

    def _received(self) -> list[int]:
        numbers = []
        with contextlib.suppress(BlockingIOError):
            while True:
                numbers.append(_NUMBER.unpack(self.receiver.recv(_NUMBER.size))[0])
        return numbers

    def _judged(self) -> int:
        sample = self._backend.sample()
        counts = sample.up if self._direction is Direction.UP else sample.down
        return int(counts.arrived_packets[self._device])

    def _await(self, judged: int) -> None:
        limit_s = time.monotonic() + 10
        while self._judged() < judged:
            assert time.monotonic() < limit_s, f"packets vanished: {self._judged()} of {judged}"
            time.sleep(0.0005)


def _open() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def stamp_arrivals(receiver: socket.socket) -> None:
    """Have the kernel stamp what a socket receives."""
    receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def stamp_s(ancillary: Sequence[tuple[int, int, bytes]]) -> float:
    """Return the kernel's timestamp among what came with a message."""
    seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
    return float(seconds + nanoseconds * 1e-9)


class Flood:
    """Offers datagrams to links at given rates, a little more than these carry.

    Args:
        offered_bps: layer-2 rate of full frames for each flow.

    """

    def __init__(self, offered_bps: Mapping[Datagrams, float]) -> None:
        self._per_s = {flow: bps / FRAME_BITS / flow.frames for flow, bps in offered_bps.items()}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        offered = dict.fromkeys(self._per_s, 0.0)
        last_s = time.monotonic()
        while not self._stopping.wait(_PACE_S):
            elapsed_s, last_s = time.monotonic() - last_s, time.monotonic()
            for flow, per_s in self._per_s.items():
                due = offered[flow] + per_s * elapsed_s
                flow.send(int(due))
                offered[flow] = due % 1


class Catcher:
    """Takes in flows' datagrams as they arrive."""

    def __init__(self, flows: Sequence[Datagrams]) -> None:
        self.arrivals: dict[Datagrams, list[Arrival]] = {flow: [] for flow in flows}
        self._stopping, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.close()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stopping, selectors.EVENT_READ, None)
            for flow in self.arrivals:
                selector.register(flow.receiver, selectors.EVENT_READ, flow)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    self.arrivals[key.data] += key.data.drain()


class ArrivalCounters:
    """Packets that came to the interfaces at which links end; nothing of ours counts them."""

    def __init__(self, backend: LinkBackend) -> None:
        self._backend = backend
        self._hub = NetlinkSocket()

    def look(self, ends: Sequence[tuple[int, Direction]]) -> list[tuple[float, int]]:
        """Return for devices and directions when was looked, and how many had arrived."""
        return [self._packets(device, direction) for device, direction in ends]

    def _packets(self, device: int, direction: Direction) -> tuple[float, int]:
        up = direction is Direction.UP
        netlink = self._hub if up else self._backend.namespaces[device].netlink
        ask = [links.read_counters(hub_index(device) if up else DEVICE_INDEX)]
        before_s = time.monotonic()
        counters = links.parse_counters(netlink.query(ask)[0])
        return (before_s + time.monotonic()) / 2, counters.rx_packets
