"""Senders that outlive contact windows, and the windows that they are sent through."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
from conformance.traffic import now_s, stamp_arrivals, stamp_s

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.link_state import BoolArray, LinkTick, plain_tick

GUARD_S = 0.020
"""What was on its way when a window closed may still arrive for this long."""


def window_tick(rate_bps: float, is_open: BoolArray) -> LinkTick:
    rates_bps = np.full(len(is_open), rate_bps)
    return plain_tick(rates_bps, rates_bps, is_open=is_open)


class Outages:
    """Closes links for given times, again and again, and opens them in between.

    Args:
        outages_s: how long each device's link is closed.
        open_s: how long it is open then.

    """

    def __init__(
        self, backend: LinkBackend, rate_bps: float, outages_s: Sequence[float], open_s: float
    ) -> None:
        self._backend, self._rate_bps = backend, rate_bps
        self._outages_s, self._open_s = outages_s, open_s
        self.closed_s: list[list[tuple[float, float]]] = [[] for _ in outages_s]
        """From when to when each link was closed: from the end of the one call to the beginning
        of the other."""

    def run(self, duration_s: float) -> Iterator[tuple[int, bool]]:
        """Yield each device whose link was just closed (False) or opened (True); in the end all
        are open."""
        is_open = np.ones(len(self._outages_s), dtype=np.bool_)
        closing_s = np.zeros(len(self._outages_s))
        start_s = time.monotonic()
        for at_s, device, opens in self._events(duration_s):
            self._wait(start_s + at_s)
            is_open = is_open.copy()
            is_open[device] = opens
            before_s = now_s()
            self._backend.apply(window_tick(self._rate_bps, is_open))
            if opens:
                self.closed_s[device].append((float(closing_s[device]), before_s))
            else:
                closing_s[device] = now_s()
            yield device, opens

    def _events(self, duration_s: float) -> list[tuple[float, int, bool]]:
        events = []
        for device, outage_s in enumerate(self._outages_s):
            period_s = outage_s + self._open_s
            for number in range(round(duration_s // period_s)):
                # No two at the same moment.
                at_s = number * period_s + 0.011 * device
                events += [(at_s, device, False), (at_s + outage_s, device, True)]
        return sorted(events)

    def _wait(self, until_s: float) -> None:
        """Wait, and start the back-end's leak counts when they are due."""
        while (left_s := until_s - time.monotonic()) > 0:
            guard_s = self._backend.next_guard_s()
            if guard_s is not None and guard_s < until_s:
                time.sleep(max(0.0, guard_s - time.monotonic()))
                self._backend.check_guards()
            else:
                time.sleep(left_s)


class Reconnecting:
    """A device that connects to the server anew whenever it is told that its window has opened.

    One of the two sends without end, the other receives. Threads end with their process.
    """

    def __init__(self, backend: LinkBackend, device: int, direction: Direction) -> None:
        self.arrivals: list[tuple[float, int]] = []
        """When bytes arrived, by the kernel, and how many."""
        self._up = direction is Direction.UP
        self._namespace = backend.namespaces[device]
        self._listener = socket.create_server((backend.server_address, 0))
        stamp_arrivals(self._listener)  # what it accepts inherits that
        self._connection: socket.socket | None = None
        self._told = threading.Event()
        for work in (self._connect_when_told, self._accept):
            threading.Thread(target=work, daemon=True).start()

    def window_opened(self) -> None:
        """Tell the device."""
        self._told.set()

    def _connect_when_told(self) -> None:
        while True:
            fresh = self._namespace.run(socket.socket)
            stamp_arrivals(fresh)
            self._told.wait()
            self._told.clear()
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
            self._connection = fresh
            with contextlib.suppress(OSError):
                fresh.connect(self._listener.getsockname())
                self._pump(fresh, sends=self._up)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self._pump(connection, sends=not self._up)

    def _pump(self, connection: socket.socket, *, sends: bool) -> None:
        work = self._send if sends else self._receive
        threading.Thread(target=work, args=(connection,), daemon=True).start()

    def _send(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(bytes(1 << 14))

    def _receive(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, ancillary, _, _ = connection.recvmsg(1 << 14, 64)
                if not data:
                    return
                self.arrivals.append((stamp_s(ancillary), len(data)))


def first_after_s(arrivals: Sequence[tuple[float, int]], opened_s: float) -> float:
    """Return how long after a window's opening the first byte arrived; infinity if none did."""
    return min((at_s - opened_s for at_s, _ in arrivals if at_s > opened_s), default=float("inf"))


def within(arrivals_s: Sequence[float], closed_s: Sequence[tuple[float, float]]) -> int:
    """Return how many arrived in closed windows, the guard time aside."""
    at_s = np.array(arrivals_s)
    return sum(int(((at_s > a + GUARD_S) & (at_s < b)).sum()) for a, b in closed_s)
