"""The back-end that shapes nothing lets processes talk and counts what they say."""

import pytest
from sandboxed import FRAME_BYTES, in_sandbox, make_backend, make_tick, udp_pair

from fadelab_emulation.backends.dry import DryBackend


def talk() -> tuple[str, list[tuple[int, int]], int]:
    backend = make_backend(2, 64e3, DryBackend)
    backend.apply(make_tick(2, 64e3, is_open=False))
    for uplink, count in ((True, 7), (False, 5)):
        sender, receiver = udp_pair(backend, uplink=uplink)
        for _ in range(count):
            sender.send(bytes(1472))
            receiver.recv(2000)
    counters = backend.counters()
    sample = backend.sample()
    backend.close()
    wire = [(int(d.wire_packets[0]), int(d.wire_bytes[0])) for d in (counters.up, counters.down)]
    return backend.server_address, wire, int(sample.up.sent_bytes.sum())


@pytest.mark.namespaces
def test_closed_and_slow_links_are_neither() -> None:
    address, wire, sampled = in_sandbox(talk)
    assert address == "10.77.0.1"
    assert wire == [(7, 7 * FRAME_BYTES), (5, 5 * FRAME_BYTES)]
    assert sampled == 0


def test_outside_a_sandbox_there_are_no_links_and_the_timeline_goes_on() -> None:
    backend = make_backend(3, 1e6, DryBackend)
    backend.apply(make_tick(3, 1e6))
    backend.check_guards()
    assert (backend.name, backend.server_address) == ("dry", "127.0.0.1")
    assert list(backend.namespaces) == []
    assert backend.next_guard_s() is None
    assert backend.drain_resumes() == []
    assert backend.sample().devices.tolist() == [0, 1, 2]
    assert backend.counters().up.wire_bytes.tolist() == [0, 0, 0]
    backend.close()
