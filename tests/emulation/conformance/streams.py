"""TCP connections that send as much as they can, timed and counted by the kernel that receives."""

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Self

import numpy as np
from conformance.traffic import per_second, stamp_arrivals, stamp_s
from sandboxed import tcp_pair

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.link_state import FloatArray


class Stream:
    """A connection of a device with the server, sending in one direction without end.

    Args:
        awake_for_bytes: how much must have arrived for the receiver to take it in, which saves a
            slow machine most of its work.

    """

    def __init__(
        self, backend: LinkBackend, device: int, direction: Direction, *, awake_for_bytes: int = 1
    ) -> None:
        at_device, at_server = tcp_pair(backend, device)
        up = direction is Direction.UP
        self._sender, self._receiver = (at_device, at_server) if up else (at_server, at_device)
        self._sender.settimeout(None)
        self._receiver.settimeout(None)
        stamp_arrivals(self._receiver)
        self._receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, awake_for_bytes)
        self.arrivals: list[tuple[float, int]] = []
        """When bytes arrived, by the clock of :func:`~.traffic.now_s`, and how many."""
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in (self._sender, self._receiver):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._receiver.close()

    def bps_per_second(self, start_s: float, seconds: int) -> FloatArray:
        """Return the payload that arrived in each second from ``start_s`` on, in bit/s."""
        at_s, sizes = zip(*self.arrivals, strict=True)
        return per_second(at_s, 8.0 * np.cumsum(sizes), start_s, seconds)

    def _send(self) -> None:
        block = bytes(1 << 16)
        with contextlib.suppress(OSError):
            while True:
                self._sender.sendall(block)

    def _receive(self) -> None:
        # Only poll may wait for that much: see SO_RCVLOWAT in socket(7).
        there = select.poll()
        there.register(self._receiver, select.POLLIN)
        with contextlib.suppress(OSError):
            while there.poll():
                data, ancillary, _, _ = self._receiver.recvmsg(1 << 17, 64, socket.MSG_DONTWAIT)
                if not data:
                    return
                self.arrivals.append((stamp_s(ancillary), len(data)))
