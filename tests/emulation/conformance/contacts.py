"""Senders that outlive contact windows, and the windows that they are sent through."""

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from conformance.traffic import now_s, stamp_arrivals, stamp_s

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.link_state import BoolArray, LinkTick, plain_tick

_PIECE_BYTES, _PAUSE_S = 1000, 0.01
_MOST_CONNECTIONS = 20
_AT_ONCE = struct.pack("@ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""
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
    """Devices that connect to the server anew whenever they are told that their window has opened.

    One end of each connection sends a piece now and then, the other receives. All is done by one
    thread, with sockets made beforehand: neither waits for other threads of a busy interpreter.
    """

    def __init__(self, backend: LinkBackend, ends: Sequence[tuple[int, Direction]]) -> None:
        self.arrivals: list[list[tuple[float, int]]] = [[] for _ in ends]
        """For each device when bytes arrived, by the kernel, and how many."""
        self._ways = [direction for _, direction in ends]
        self._fresh = [backend.namespaces[device].run(_fresh_sockets) for device, _ in ends]
        self._listeners = [socket.create_server((backend.server_address, 0)) for _ in ends]
        self._senders: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        for device, listener in enumerate(self._listeners):
            listener.setblocking(False)
            stamp_arrivals(listener)  # what it accepts inherits that
            self._watch(listener, partial(self._accept, device))
        told, self._told = socket.socketpair()
        self._watch(told, lambda: self._connect(told.recv(1)[0]))
        threading.Thread(target=self._run, daemon=True).start()

    def window_opened(self, device: int) -> None:
        """Tell a device."""
        self._told.send(bytes([device]))

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(_PAUSE_S):
                key.data()
            for device in self._senders:
                self._send(device)

    def _watch(self, end: socket.socket, action: Callable[[], None]) -> None:
        self._selector.register(end, selectors.EVENT_READ, action)

    def _connect(self, device: int) -> None:
        fresh = self._fresh[device].pop()
        with contextlib.suppress(BlockingIOError):
            fresh.connect(self._listeners[device].getsockname())
        self._use(device, fresh, sends=self._ways[device] is Direction.UP)

    def _accept(self, device: int) -> None:
        accepted, _ = self._listeners[device].accept()
        accepted.setblocking(False)
        self._use(device, accepted, sends=self._ways[device] is Direction.DOWN)

    def _use(self, device: int, end: socket.socket, *, sends: bool) -> None:
        if sends:
            # Only one writes; what the one before had not sent yet, it will not send any more.
            if device in self._senders:
                self._senders[device].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                self._senders[device].close()
            self._senders[device] = end
            self._send(device)
        else:
            self._watch(end, partial(self._receive, device, end))

    def _send(self, device: int) -> None:
        # A connection that is yet to be made, or full, will be asked again.
        with contextlib.suppress(OSError):
            self._senders[device].send(bytes(_PIECE_BYTES))

    def _receive(self, device: int, end: socket.socket) -> None:
        try:
            data, ancillary, _, _ = end.recvmsg(1 << 16, 64)
        except OSError:
            data = b""
        if data:
            self.arrivals[device].append((stamp_s(ancillary), len(data)))
        else:
            self._selector.unregister(end)
            end.close()


def _fresh_sockets() -> list[socket.socket]:
    made = [socket.socket() for _ in range(_MOST_CONNECTIONS)]
    for one in made:
        one.setblocking(False)
        stamp_arrivals(one)
    return made


def first_after_s(arrivals: Sequence[tuple[float, int]], opened_s: float) -> float:
    """Return how long after a window's opening the first byte arrived; infinity if none did."""
    return min((at_s - opened_s for at_s, _ in arrivals if at_s > opened_s), default=float("inf"))


def within(arrivals_s: Sequence[float], closed_s: Sequence[tuple[float, float]]) -> int:
    """Return how many arrived in closed windows, the guard time aside."""
    at_s = np.array(arrivals_s)
    return sum(int(((at_s > a + GUARD_S) & (at_s < b)).sum()) for a, b in closed_s)
