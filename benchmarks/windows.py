"""How soon traffic flows again after a contact window reopened, in every window mode.

    python benchmarks/windows.py [--outages 1 5 20] [--trials 5] [--rounds 2] [--grpc] [--reconnect]

Needs namespaces (root, or unprivileged user namespaces). Each trial is a device of its own with a
saturated 2 Mbit/s link; half of them send, half receive, all through the same closed windows.
Prints the milliseconds from the reopening to the first new byte: least, median, most. A device
that has heard nothing within 60 s counts as "never". Takes about two minutes for
each mode.
"""

import argparse
import contextlib
import itertools
import os
import random
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import numpy as np

from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.backends.lite import lite_backend
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.link_state import LinkTick, plain_tick
from fadelab_emulation.sandbox import enter_sandbox
from fadelab_emulation.window import WindowMode
from fadelab_proto.clock import SystemClock

RATE_BPS = 2e6
WARM_UP_S = 2.0
PATIENCE_S = 60.0
_GRPC_PORT = 50051
_MESSAGE = bytes(8192)
_ARRIVAL = struct.Struct("=id")


class Arrivals:
    """When each device's data last came, and the first time since a moment."""

    def __init__(self, devices: int) -> None:
        self._since_s = float("inf")
        self._first_s: dict[int, float] = {}
        self._all = threading.Condition()
        self._devices = devices

    def note(self, device: int, at_s: float) -> None:
        """Take down that data came for or from a device."""
        with self._all:
            if at_s >= self._since_s and device not in self._first_s:
                self._first_s[device] = at_s
                self._all.notify_all()

    def since(self, start_s: float) -> None:
        """Forget what came so far; only what comes from this moment on counts."""
        with self._all:
            self._first_s, self._since_s = {}, start_s

    def wait(self) -> list[float | None]:
        """Return each device's seconds until its first data; None for never."""
        with self._all:
            self._all.wait_for(lambda: len(self._first_s) == self._devices, PATIENCE_S)
            found = [self._first_s.get(device) for device in range(self._devices)]
            return [None if at_s is None else at_s - self._since_s for at_s in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outages", type=float, nargs="+", default=[1.0, 5.0, 20.0])
    parser.add_argument("--trials", type=int, default=5, help="devices in each direction")
    parser.add_argument("--rounds", type=int, default=2, help="outages of each length")
    parser.add_argument("--modes", nargs="+", default=list(WindowMode), type=WindowMode)
    parser.add_argument(
        "--reconnect", action="store_true", help="connect anew at once after a further outage"
    )
    parser.add_argument("--grpc", action="store_true", help="gRPC streams instead of plain TCP")
    options = parser.parse_args()
    for mode in options.modes:
        in_sandbox(lambda mode=mode: measure(mode, options))  # type: ignore[misc]
    return 0


def in_sandbox(action: Callable[[], object]) -> None:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        enter_sandbox()
        action()
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)


def measure(mode: WindowMode, options: argparse.Namespace) -> None:
    devices = 2 * options.trials
    plan = LinkPlan([QueueSizes.for_rates(RATE_BPS, RATE_BPS)] * devices, window=mode)
    backend = lite_backend(plan, SystemClock())
    backend.apply(state(devices, is_open=True))
    arrivals, fresh = Arrivals(devices), Arrivals(devices)
    if options.grpc:
        start_grpc_streams(backend, arrivals, options.trials)
    else:
        start_tcp_flows(backend, arrivals, options.trials)
    for outage_s in options.outages:
        waits: list[list[float | None]] = [[] for _ in range(4)]
        for _ in range(options.rounds):
            time.sleep(WARM_UP_S)
            interrupt(backend, outage_s, arrivals)
            found = arrivals.wait()
            waits[0] += found[: options.trials]
            waits[1] += found[options.trials :]
            if options.reconnect:
                interrupt(backend, outage_s, fresh)
                start_tcp_flows(backend, fresh, options.trials, once=True)
                found = fresh.wait()
                waits[2] += found[: options.trials]
                waits[3] += found[options.trials :]
        names = ("up", "down", "up, connected anew", "down, connected anew")
        for name, own in zip(names, waits, strict=True):
            if own:
                print(f"{mode:7} {outage_s:4.0f} s {summary(own)}   {name}", flush=True)


def interrupt(backend: KernelBackend, outage_s: float, arrivals: Arrivals) -> None:
    """Close all windows for about so long and reopen them."""
    devices = len(backend.namespaces)
    backend.apply(state(devices, is_open=False))
    # Retransmission timers double: always the same outage would always meet the same phase.
    time.sleep(outage_s * random.uniform(0.9, 1.1))
    arrivals.since(time.monotonic())
    backend.apply(state(devices, is_open=True))


def in_thread(action: Callable[[], object]) -> None:
    threading.Thread(target=action, daemon=True).start()


def start_tcp_flows(
    backend: KernelBackend, arrivals: Arrivals, trials: int, *, once: bool = False
) -> None:
    """Have each device connect to the server and one of them send; note what arrives."""
    listener = socket.create_server((backend.server_address, 0), backlog=2 * trials)
    address = listener.getsockname()

    def serve() -> None:
        for _ in range(2 * trials):
            server, _ = listener.accept()
            in_thread(lambda server=server: greet(server))  # type: ignore[misc]
        listener.close()

    def greet(server: socket.socket) -> None:
        device = server.recv(1)[0]
        arrivals.note(device, time.monotonic())
        carry(device, server)

    def carry(device: int, own: socket.socket, *, at_server: bool = True) -> None:
        sends = (device < trials) is not at_server
        while sends and not once:
            own.sendall(_MESSAGE)
        if sends:
            own.sendall(b"x")
            return
        while own.recv(65536):
            arrivals.note(device, time.monotonic())

    def connect(device: int) -> None:
        client = backend.namespaces[device].run(socket.socket)
        client.connect(address)
        client.sendall(bytes([device]))
        carry(device, client, at_server=False)

    in_thread(serve)
    for device in range(2 * trials):
        in_thread(lambda device=device: connect(device))  # type: ignore[misc]


def start_grpc_streams(backend: KernelBackend, arrivals: Arrivals, trials: int) -> None:
    """Have each device stream to or from the server through a channel with default options."""
    reader, writer = os.pipe()
    for device in range(2 * trials):
        if os.fork() == 0:
            backend.namespaces[device].enter()
            grpc_client(f"{backend.server_address}:{_GRPC_PORT}", device, trials, writer)
    grpc_server(f"{backend.server_address}:{_GRPC_PORT}", arrivals, 2 * trials)

    def collect() -> None:
        with os.fdopen(reader, "rb") as pipe:
            while record := pipe.read(_ARRIVAL.size):
                arrivals.note(*_ARRIVAL.unpack(record))

    in_thread(collect)


def grpc_server(address: str, arrivals: Arrivals, streams: int) -> None:
    import grpc  # noqa: PLC0415 -- clients are forked before gRPC starts its threads

    def up(messages: Iterator[bytes], _: object) -> bytes:
        for message in messages:
            arrivals.note(message[0], time.monotonic())
        return b""

    def down(_: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        while context.is_active():
            yield _MESSAGE

    # A stream that the server has not seen break yet still holds its thread.
    server = grpc.server(ThreadPoolExecutor(max_workers=8 * streams))
    handlers = {
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Down": grpc.unary_stream_rpc_method_handler(down),
    }
    generic = grpc.method_handlers_generic_handler("Windows", handlers)
    server.add_generic_rpc_handlers((generic,))
    server.add_insecure_port(address)
    server.start()
    in_thread(server.wait_for_termination)


def grpc_client(address: str, device: int, trials: int, writer: int) -> NoReturn:
    import grpc  # noqa: PLC0415

    channel = grpc.insecure_channel(address)
    up = channel.stream_unary("/Windows/Up")
    down = channel.unary_stream("/Windows/Down")
    message = bytes([device]) + _MESSAGE
    while True:
        with contextlib.suppress(grpc.RpcError):
            if device < trials:
                up(itertools.repeat(message), wait_for_ready=True)
            for _ in down(b"", wait_for_ready=True):
                os.write(writer, _ARRIVAL.pack(device, time.monotonic()))


def state(devices: int, *, is_open: bool) -> LinkTick:
    rates = np.full(devices, RATE_BPS)
    return plain_tick(rates, rates, is_open=np.full(devices, is_open))


def summary(waits_s: Sequence[float | None]) -> str:
    heard = sorted(1e3 * wait for wait in waits_s if wait is not None)
    never = len(waits_s) - len(heard)
    text = f"{heard[0]:7.0f} {statistics.median(heard):7.0f} {heard[-1]:7.0f}" if heard else ""
    return text + (f"   never: {never}" if never else "")


if __name__ == "__main__":
    sys.exit(main())
