"""Run a test's body in a sandbox of its own, and move data through its links."""

import os
import pickle
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest

from fadelab_emulation.backends.lite import LiteBackend
from fadelab_emulation.backends.topology import SERVER_ADDRESS, QueueSizes, device_address
from fadelab_emulation.link_state import LinkTick, PacketLoss, plain_tick
from fadelab_emulation.sandbox import enter_sandbox, probe_sandbox
from fadelab_proto.clock import SystemClock

Result = TypeVar("Result")
FRAME_BYTES = 1514
_UDP_PAYLOAD = 1472
_LIMIT_S = 60


def in_sandbox(body: Callable[..., Result], *arguments: Any) -> Result:
    """Return ``body(*arguments)`` computed by a child process in a fresh sandbox."""
    probe = probe_sandbox()
    if not probe.available:
        pytest.skip(f"needs namespaces: {probe.problem}")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads of other tests
        child = os.fork()
    if child == 0:
        _child(writer, body, arguments)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer, "the sandbox ended without an answer"
    result = pickle.loads(answer)
    if isinstance(result, BaseException):
        raise result
    return result  # type: ignore[no-any-return]


def _child(writer: int, body: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        enter_sandbox()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LIMIT_S)
        result = body(*arguments)
    except BaseException as error:  # noqa: BLE001 -- pytest shall see it
        result = error
    try:
        answer = pickle.dumps(result)
    except Exception:  # noqa: BLE001
        answer = pickle.dumps(AssertionError(repr(result)))
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(answer)
    os._exit(0)


def make_tick(
    devices: int,
    rate_bps: float,
    *,
    is_open: bool = True,
    loss_up: float = 0.0,
    loss_down: float = 0.0,
) -> LinkTick:
    """Return a tick in which all links are alike in both directions."""
    rates = np.full(devices, rate_bps)
    return plain_tick(
        rates,
        rates,
        is_open=np.full(devices, is_open),
        loss_up=PacketLoss.independent(np.full(devices, loss_up)),
        loss_down=PacketLoss.independent(np.full(devices, loss_down)),
    )


def make_backend(devices: int, rate_bps: float) -> LiteBackend:
    queues = [QueueSizes.for_rates(rate_bps, rate_bps)] * devices
    return LiteBackend(queues, SystemClock())


def tcp_pair(backend: LiteBackend, device: int) -> tuple[socket.socket, socket.socket]:
    """Return the device's and the server's end of a connection."""
    with socket.create_server((SERVER_ADDRESS, 0)) as listener:
        client = backend.namespaces[device].run(socket.socket)
        client.settimeout(10)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    return client, server


def udp_pair(backend: LiteBackend, *, uplink: bool) -> tuple[socket.socket, socket.socket]:
    """Return a connected sender and a receiver for one direction of device 0's link."""
    at_hub = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    at_device = backend.namespaces[0].run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender, receiver = (at_device, at_hub) if uplink else (at_hub, at_device)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    receiver.bind((SERVER_ADDRESS if uplink else device_address(0), 0))
    receiver.settimeout(5)
    sender.connect(receiver.getsockname())
    return sender, receiver


class Flow:
    """Sends as fast as it may from one socket to another and notes what arrives when."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        self.arrivals: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._sender, self._receiver = sender, receiver
        sender.settimeout(0.1)
        receiver.settimeout(0.1)
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def rate_bps(self, duration_s: float) -> float:
        """Return the bits per second that arrive from now on for ``duration_s``."""
        start_s = time.monotonic()
        time.sleep(duration_s)
        seen = [arrival for arrival in list(self.arrivals) if arrival[0] >= start_s]
        carried = sum(size for _, size in seen[1:])
        return carried * 8 / (seen[-1][0] - seen[0][0])

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        datagram = self._sender.type == socket.SOCK_DGRAM
        buffer = bytes(_UDP_PAYLOAD if datagram else 16384)
        while not self._stop.is_set():
            try:
                self._sender.send(buffer)
            except TimeoutError:
                continue
            except BlockingIOError:
                continue

    def _receive(self) -> None:
        while not self._stop.is_set():
            try:
                size = len(self._receiver.recv(65536))
            except TimeoutError:
                continue
            self.arrivals.append((time.monotonic(), size))
