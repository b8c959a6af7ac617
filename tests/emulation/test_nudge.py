"""A nudge makes a reopened gate look at its queue at once, and leaves no trace on the wire."""

import time

import pytest
from sandboxed import in_sandbox, make_backend, make_tick, udp_pair

from fadelab_emulation.backends import topology
from fadelab_emulation.backends.nudge import Nudger
from fadelab_emulation.netlink import traffic

pytestmark = pytest.mark.namespaces


def wire(backend: object) -> list[int]:
    counters = backend.counters()  # type: ignore[attr-defined]
    return [
        int(count[0])
        for direction in (counters.up, counters.down)
        for count in (direction.wire_packets, direction.wire_bytes)
    ]


def resumption(nudged: bool) -> tuple[bool, bool]:
    """Return whether a packet waited at the closed gate and came soon after it opened.

    The gate is opened by hand, without the back-end, which would nudge by itself.
    """
    backend = make_backend(1, 1e6)
    backend.apply(make_tick(1, 1e6))
    sender, receiver = udp_pair(backend, uplink=True)
    nudger = backend.namespaces[0].run(lambda: Nudger(topology.SHAPER))
    backend.apply(make_tick(1, 1e6, is_open=False))
    sender.send(b"waiting")
    time.sleep(0.05)
    waited = backend.waiting_bytes()[0, 0] > 0
    opened = traffic.change_tbf(topology.gate_open(topology.DEVICE_INDEX))
    backend.namespaces[0].netlink.change([opened])
    if nudged:
        nudger.nudge(topology.SERVER_ADDRESS)
    receiver.settimeout(0.2)
    try:
        came = receiver.recv(100) == b"waiting"
    except TimeoutError:
        came = False
    nudger.close()
    return waited, came


def test_a_nudged_gate_resumes_at_once() -> None:
    assert in_sandbox(resumption, True) == (True, True)


def test_without_a_nudge_it_sleeps_on_so_that_the_test_above_shows_something() -> None:
    assert in_sandbox(resumption, False) == (True, False)


def counters_through_nudges(is_open: bool) -> tuple[list[int], list[int]]:
    backend = make_backend(1, 1e6)
    backend.apply(make_tick(1, 1e6))
    sender, receiver = udp_pair(backend, uplink=True)
    sender.send(b"one")
    receiver.recv(10)
    backend.apply(make_tick(1, 1e6, is_open=is_open))
    before = wire(backend)
    up = backend.namespaces[0].run(lambda: Nudger(topology.SHAPER))
    down = Nudger(topology.SHAPER)
    for _ in range(50):
        up.nudge(topology.SERVER_ADDRESS)
        down.nudge(topology.device_address(0))
    time.sleep(0.1)
    after = wire(backend)
    up.close()
    down.close()
    return before, after


@pytest.mark.parametrize("is_open", [True, False])
def test_no_interface_counter_moves_through_nudges(is_open: bool) -> None:
    before, after = in_sandbox(counters_through_nudges, is_open)
    assert before[0] == 1
    assert after == before


def fidelity_through_nudges() -> tuple[int, int]:
    """Return the bytes that the uplink shaper counted as sent and holds, after fifty nudges."""
    backend = make_backend(1, 1e6)
    backend.apply(make_tick(1, 1e6))
    nudger = backend.namespaces[0].run(lambda: Nudger(topology.SHAPER))
    for _ in range(50):
        nudger.nudge(topology.SERVER_ADDRESS)
    ask = [traffic.read_shaper(topology.DEVICE_INDEX)]
    counters = traffic.parse_shaper(backend.namespaces[0].netlink.query(ask)[0])
    nudger.close()
    return counters.sent_bytes, counters.backlog_bytes


def test_the_shaper_counts_no_nudge_as_sent_or_waiting() -> None:
    assert in_sandbox(fidelity_through_nudges) == (0, 0)
