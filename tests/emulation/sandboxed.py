"""Run a test's body in a sandbox of its own, and move data through its links."""

import os
import pickle
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np
import pytest
from tests.processes import CLEAN, fork

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.lite import lite_backend
from fadelab_emulation.backends.plan import ClassMark, LinkPlan, QueueSizes
from fadelab_emulation.link_state import LinkTick, PacketLoss, plain_tick
from fadelab_emulation.sandbox import enter_sandbox, probe_sandbox
from fadelab_emulation.window import WindowMode
from fadelab_proto.clock import Clock, SystemClock

Result = TypeVar("Result")
AnyBackend = TypeVar("AnyBackend", bound=LinkBackend)
FRAME_BYTES = 1514
UDP_PAYLOAD_BYTES = 1472
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY_BYTES = 128
_LIMIT_S = 60


def in_sandbox(body: Callable[..., Result], *arguments: Any) -> Result:
    """Return ``body(*arguments)`` computed by a child process in a fresh sandbox."""
    return in_sandboxes([partial(body, *arguments)])[0]


def in_sandboxes(bodies: Sequence[Callable[[], Result]], *, clean: bool = False) -> list[Result]:
    """Return what each body computes in a sandbox of its own, all of them at the same time.

    Bodies that use gRPC need ``clean`` processes: see ``tests/processes.py``.
    """
    probe = _probe()
    if not probe.available:
        pytest.skip(f"needs namespaces: {probe.problem}")
    start = _start_clean if clean else _start_fork
    results = [_ended(*started) for started in [_started(start, body) for body in bodies]]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


_probe = cache(probe_sandbox)


def _started(
    start: Callable[[Connection, Callable[[], Any]], Callable[[], object]],
    body: Callable[[], Any],
) -> tuple[Connection, Callable[[], object]]:
    """Start a child that computes; return where its answer can be read and how to wait for it."""
    reader, writer = CLEAN.Pipe(duplex=False)
    wait = start(writer, body)
    writer.close()
    return reader, wait


def _start_fork(writer: Connection, body: Callable[[], Any]) -> Callable[[], object]:
    return partial(os.waitpid, fork(partial(_child, writer, body)), 0)


def _start_clean(writer: Connection, body: Callable[[], Any]) -> Callable[[], object]:
    child = CLEAN.Process(target=_child, args=(writer, body), daemon=True)
    child.start()
    return child.join


def _ended(reader: Connection, wait: Callable[[], object]) -> Any:
    with reader:
        try:
            answer = reader.recv_bytes()
        except EOFError:
            answer = None
    wait()
    return pickle.loads(answer) if answer else AssertionError("the sandbox ended without an answer")


def _child(writer: Connection, body: Callable[[], Any]) -> None:
    try:
        enter_sandbox()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LIMIT_S)
        result = body()
    except BaseException as error:  # noqa: BLE001 -- pytest shall see it
        result = error
    try:
        answer = pickle.dumps(result)
    except Exception:  # noqa: BLE001
        answer = pickle.dumps(AssertionError(repr(result)))
    writer.send_bytes(answer)
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


def make_backend(
    devices: int,
    rate_bps: float,
    factory: Callable[[LinkPlan, Clock], AnyBackend] = lite_backend,
    *,
    window: WindowMode = WindowMode.HOLD,
    classes: tuple[ClassMark, ...] = (),
    seed: int = 0,
) -> AnyBackend:
    """Return closed links with queues for this rate, made by any back-end's factory."""
    queues = [QueueSizes.for_rates(rate_bps, rate_bps)] * devices
    return factory(LinkPlan(queues, classes, window, seed), SystemClock())


def address_of(backend: LinkBackend, device: int) -> str:
    """Return the address that a device sends from."""

    def ask() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((backend.server_address, 9))
            return str(asking.getsockname()[0])

    return backend.namespaces[device].run(ask)


def tcp_pair(
    backend: LinkBackend, device: int, port: int = 0
) -> tuple[socket.socket, socket.socket]:
    """Return the device's and the server's end of a connection."""
    with socket.create_server((backend.server_address, port)) as listener:
        client = backend.namespaces[device].run(socket.socket)
        client.settimeout(10)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    return client, server


def udp_pair(
    backend: LinkBackend, *, uplink: bool, port: int = 0, device: int = 0
) -> tuple[socket.socket, socket.socket]:
    """Return a connected sender and a receiver for one direction of a device's link."""
    at_hub = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    at_device = backend.namespaces[device].run(
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    )
    sender, receiver = (at_device, at_hub) if uplink else (at_hub, at_device)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    receiver.bind((backend.server_address if uplink else address_of(backend, device), port))
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
        return self.rate_between(start_s, start_s + duration_s)

    def rate_between(self, start_s: float, end_s: float) -> float:
        """Return the bits per second that arrived between two monotonic seconds."""
        seen = [arrival for arrival in list(self.arrivals) if start_s <= arrival[0] <= end_s]
        carried = sum(size for _, size in seen[1:])
        return carried * 8 / (seen[-1][0] - seen[0][0])

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        datagram = self._sender.type == socket.SOCK_DGRAM
        buffer = bytes(UDP_PAYLOAD_BYTES if datagram else 16384)
        while not self._stop.is_set():
            try:
                self._sender.send(buffer)
            except TimeoutError:
                continue
            except BlockingIOError:
                continue

    def _receive(self) -> None:
        # A datagram's time is the kernel's: threads of a busy machine come too late to say.
        if self._receiver.type == socket.SOCK_DGRAM:
            self._receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        while not self._stop.is_set():
            try:
                data, ancillary, _, _ = self._receiver.recvmsg(65536, _ANCILLARY_BYTES)
            except TimeoutError:
                continue
            arrived_s = time.monotonic()
            for _, kind, stamp in ancillary:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                    arrived_s -= time.time() - seconds - nanoseconds * 1e-9
            self.arrivals.append((arrived_s, len(data)))
