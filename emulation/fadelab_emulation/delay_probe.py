"""What delay links really have: small datagrams, timed by the kernel where they arrive."""

import contextlib
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fadelab_emulation.namespaces import NetworkNamespace

_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_PROBE = struct.Struct("<4sIId")
_MAGIC = b"flDP"
_ANCILLARY_BYTES = 64
PROBE_FRAME_BYTES = 14 + 20 + 8 + _PROBE.size
"""Layer-2 bytes of one probe."""


class DelaySample(NamedTuple):
    """One probe that arrived."""

    device: int
    delay_s: float
    uplink: bool


@dataclass(frozen=True, slots=True)
class _Ends:
    device: socket.socket
    device_address: tuple[str, int]


class DelayProbe:
    """Sends probes over links in both directions and tells how long they took.

    Sending time is read just before the system call, arrival is the kernel's own timestamp, both
    of the machine's real-time clock; a step of that clock in between would show.
    """

    def __init__(self, namespaces: Sequence[NetworkNamespace], server_address: str) -> None:
        self._hub = _timed_socket()
        self._hub.bind((server_address, 0))
        self._server: tuple[str, int] = self._hub.getsockname()
        self._ends = [self._open_end(namespace) for namespace in namespaces]
        self._selector = selectors.DefaultSelector()
        for end in (self._hub, *(ends.device for ends in self._ends)):
            self._selector.register(end, selectors.EVENT_READ)
        self._sent = 0

    def _open_end(self, namespace: NetworkNamespace) -> _Ends:
        def connect() -> socket.socket:
            end = _timed_socket()
            end.connect(self._server)
            return end

        end = namespace.run(connect)
        address: tuple[str, int] = end.getsockname()
        return _Ends(end, address)

    def reopen(self, device: int, namespace: NetworkNamespace) -> None:
        """Go on in the namespace that a device is in now."""
        former = self._ends[device].device
        self._selector.unregister(former)
        former.close()
        self._ends[device] = self._open_end(namespace)
        self._selector.register(self._ends[device].device, selectors.EVENT_READ)

    def send(self, devices: Iterable[int]) -> None:
        """Send one probe each way over these links."""
        for device in devices:
            end = self._ends[device]
            self._sent += 1
            # A full queue or a refused packet is a probe that is never heard of, no more.
            with contextlib.suppress(OSError):
                end.device.send(self._probe(device))
            with contextlib.suppress(OSError):
                self._hub.sendto(self._probe(device), end.device_address)

    def _probe(self, device: int) -> bytes:
        return _PROBE.pack(_MAGIC, device, self._sent & 0xFFFFFFFF, time.time())

    def wait(self, timeout_s: float) -> None:
        """Return when a probe has arrived, or after ``timeout_s``."""
        self._selector.select(timeout_s)

    def drain(self, devices: Iterable[int]) -> list[DelaySample]:
        """Return what has arrived by now, of these devices' downlinks and of all uplinks."""
        found = [DelaySample(d, delay_s, uplink=True) for d, delay_s in _received(self._hub)]
        for device in devices:
            arrivals = _received(self._ends[device].device)
            found += [DelaySample(device, delay_s, uplink=False) for _, delay_s in arrivals]
        return found

    def close(self) -> None:
        """Close all sockets."""
        self._selector.close()
        self._hub.close()
        for end in self._ends:
            end.device.close()


def _timed_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return made


def _received(end: socket.socket) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    receive: Callable[..., tuple[bytes, list[tuple[int, int, bytes]], int, object]] = end.recvmsg
    while True:
        try:
            data, ancillary, _, _ = receive(_PROBE.size, _ANCILLARY_BYTES)
        except OSError:
            # Nothing more, or an error that an earlier probe brought back.
            return found
        if len(data) != _PROBE.size or not ancillary:
            continue
        magic, device, _, sent_s = _PROBE.unpack(data)
        seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
        if magic == _MAGIC:
            found.append((device, seconds + nanoseconds * 1e-9 - sent_s))
