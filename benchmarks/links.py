"""Cost of emulated links: making them, changing them, reading them.

    python benchmarks/links.py [--repetitions 5]

Needs namespaces (root, or unprivileged user namespaces). Prints medians over the repetitions.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

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
    repetitions: int = parser.parse_args().repetitions
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
    return 0


def in_sandbox(devices: int) -> tuple[float, ...]:
    """Return one repetition's seconds, measured in a sandbox of its own."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        enter_sandbox()
        os.write(writer, " ".join(f"{value:.9f}" for value in measure(devices)).encode())
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
