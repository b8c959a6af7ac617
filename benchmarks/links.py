"""Cost of emulated links: making them, changing them, reading them.

    python benchmarks/links.py [--repetitions 5] [--peers 100]

Needs namespaces (root, or unprivileged user namespaces). Prints medians over the repetitions, then
the same links made and changed by `tc`, `tc -batch` and pyroute2 (as root, with iproute2).
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import link_peers
import numpy as np

from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.lite import lite_backend
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.link_state import LinkTick, plain_tick
from fadelab_emulation.sandbox import enter_sandbox
from fadelab_proto.clock import SystemClock

RATE_BPS = 5e6
TICKS = 20
CHANGES = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--peers", type=int, default=100, help="links of the others; 0: none")
    arguments = parser.parse_args()
    repetitions: int = arguments.repetitions
    print(
        f"{'devices':>7} {'make s':>7} {'tick ms':>8} {'us/change':>9} {'us for one':>10}", end=" "
    )
    print(f"{'sample ms':>9} {'close ms':>8} {'open ms':>8} {'counters ms':>11}")
    for devices in (1, 100, 1000):
        # A fresh sandbox for each repetition: the kernel clears old namespaces in its own time.
        rows = [in_sandbox(devices) for _ in range(repetitions)]
        make, tick, one, sample, close, open_, read = (
            statistics.median(column) for column in zip(*rows, strict=True)
        )
        print(
            f"{devices:7d} {make:7.3f} {tick * 1e3:8.2f} {tick / devices / 2 * 1e6:9.1f}"
            f" {one * 1e6:10.1f} {sample * 1e3:9.2f} {close * 1e3:8.2f} {open_ * 1e3:8.2f} {read * 1e3:11.2f}",
            flush=True,
        )
    if arguments.peers:
        compare_peers(arguments.peers, repetitions)
    return 0


def compare_peers(devices: int, repetitions: int) -> None:
    """Print what others take for the same, beside our own figures."""
    print(f"\n{devices} links {'':12} {'make s':>8} {'one change us':>14} {'all rates ms':>13}")
    for name, measurement in (
        ("fadelab", ours),
        ("tc -batch", link_peers.measure_batch),
        ("pyroute2", link_peers.measure_pyroute2),
        ("tc", link_peers.measure_tc),
    ):
        rows = [in_sandbox(devices, measurement) for _ in range(repetitions)]
        make_s, one_s, all_s = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:22} {make_s:8.3f} {one_s * 1e6:14.1f} {all_s * 1e3:13.2f}", flush=True)


def ours(devices: int) -> tuple[float, ...]:
    make_s, tick_s, one_s, *_ = measure(devices)
    return make_s, one_s, tick_s


def in_sandbox(
    devices: int, measurement: Callable[[int], tuple[float, ...]] | None = None
) -> tuple[float, ...]:
    """Return one repetition's seconds, measured in a sandbox of its own."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        enter_sandbox()
        if measurement is not None:
            link_peers.prepare_named_namespaces()
        values = (measurement or measure)(devices)
        os.write(writer, " ".join(f"{value:.9f}" for value in values).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        values = tuple(float(word) for word in pipe.read().split())
    os.waitpid(child, 0)
    return values


def measure(devices: int) -> tuple[float, ...]:
    start = time.perf_counter()
    plan = LinkPlan([QueueSizes.for_rates(RATE_BPS, RATE_BPS)] * devices)
    backend = lite_backend(plan, SystemClock())
    make_s = time.perf_counter() - start
    backend.apply(state(devices, RATE_BPS, is_open=True))
    ticks, samples = [], []
    for number in range(TICKS):
        tick = state(devices, RATE_BPS + 1e5 * (number + 1), is_open=True)
        ticks.append(seconds(lambda tick=tick: backend.apply(tick)))  # type: ignore[misc]
        samples.append(seconds(backend.sample))
    one_s = one_change(backend, devices)
    close_s = seconds(lambda: backend.apply(state(devices, RATE_BPS, is_open=False)))
    open_s = seconds(lambda: backend.apply(state(devices, RATE_BPS, is_open=True)))
    read_s = seconds(backend.counters)
    typical = statistics.median(ticks), one_s, statistics.median(samples)
    return (make_s, *typical, close_s, open_s, read_s)


def one_change(backend: LinkBackend, devices: int) -> float:
    """Return the median seconds of a tick in which the uplink of one device has a new rate."""
    found = []
    for number in range(CHANGES):
        down = np.full(devices, RATE_BPS)
        up = down.copy()
        up[devices // 2] += 1e3 * (1 + number % 2)
        tick = plain_tick(up, down)
        found.append(seconds(lambda tick=tick: backend.apply(tick)))  # type: ignore[misc]
    return statistics.median(found)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def state(devices: int, rate_bps: float, *, is_open: bool) -> LinkTick:
    rates = np.full(devices, rate_bps)
    return plain_tick(rates, rates, is_open=np.full(devices, is_open))


if __name__ == "__main__":
    sys.exit(main())
