"""What the emulator says of links for the byte ledger."""

import contextlib
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sandboxed import in_sandbox, make_backend, make_tick, tcp_pair, udp_pair

from fadelab_emulation import byte_watch
from fadelab_emulation.backends.base import LinkBackend
from fadelab_emulation.backends.lite import lite_backend
from fadelab_emulation.backends.plan import ClassMark, LinkPlan
from fadelab_emulation.backends.relay import RelayBackend
from fadelab_emulation.byte_watch import ByteWatch
from fadelab_proto.clock import Clock, SystemClock
from fadelab_proto.events import EventLog, read_events

pytestmark = pytest.mark.namespaces
Factory = Callable[[LinkPlan, Clock], LinkBackend]
DATAGRAM_FRAME_BYTES = 14 + 20 + 8 + 100


def log(folder: Path) -> EventLog:
    return EventLog(folder, "emulator", "0", SystemClock())


def told(backend: LinkBackend, watch: ByteWatch) -> dict[str, Any]:
    before = backend.counters()
    client, server = tcp_pair(backend, 0)
    client.sendall(bytes(20_000))
    left = 20_000
    while left:
        left -= len(server.recv(left))
    sender, receiver = udp_pair(backend, uplink=True)
    for _ in range(3):
        sender.send(bytes(100))
        receiver.recv(200)
    backend.apply(replace(make_tick(2, 20e6), is_open=np.array([False, True])))
    sender.send(bytes(100))
    # A relay takes packets in their order: when the other link's is through, that one is at its gate.
    later, other = udp_pair(backend, uplink=True, device=1)
    later.send(bytes(100))
    other.recv(200)
    watch.update()
    account = watch.accounts()[0]
    wire = backend.counters().wire_since(before)
    return account | {"wire": (int(wire.up.wire_bytes[0]), int(wire.down.wire_bytes[0]))}


def seen(factory: Factory, folder: Path) -> dict[str, Any]:
    backend = make_backend(2, 20e6, factory)
    backend.apply(make_tick(2, 20e6))
    early, taker = udp_pair(backend, uplink=True)
    early.send(bytes(1000))
    taker.recv(2000)
    with log(folder) as events, contextlib.closing(ByteWatch(backend, events)) as watch:
        return told(backend, watch)


@pytest.mark.parametrize("factory", [lite_backend, RelayBackend])
def test_an_account_adds_up_to_what_crossed_the_link(factory: Factory, tmp_path: Path) -> None:
    if factory is RelayBackend and not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    found = in_sandbox(seen, factory, tmp_path)
    assert found["connections"] == 1
    assert found["connections_missed"] == 0
    # What was sent before the watch was made does not count; the last one waits at the gate.
    assert found["up_datagrams"] == 4
    assert found["up_waiting_bytes"] == DATAGRAM_FRAME_BYTES
    assert found["up_tcp_bytes"] - found["up_tcp_retransmitted_bytes"] == 20_000
    tcp = found["up_tcp_bytes"] + found["up_tcp_header_bytes"] + 14 * found["up_tcp_segments"]
    up, down = found["wire"]
    assert abs(tcp + 3 * DATAGRAM_FRAME_BYTES - up) < 250
    assert abs(found["down_tcp_header_bytes"] + 14 * found["down_tcp_segments"] - down) < 250
    held = DATAGRAM_FRAME_BYTES if factory is RelayBackend else 0
    assert abs(found["up_device_end_bytes"] - held - up) < 250


def by_class(factory: Factory, folder: Path) -> tuple[dict[str, list[int]], list[int], int]:
    backend = make_backend(2, 20e6, factory, classes=(ClassMark(dscp=46), ClassMark(port=5001)))
    tick = make_tick(2, 20e6)
    backend.apply(replace(tick, up=tick.up * 3, down=tick.down * 3))
    early, taker = udp_pair(backend, uplink=True)
    early.send(bytes(1000))
    taker.recv(2000)
    with log(folder) as events, contextlib.closing(ByteWatch(backend, events)) as watch:
        before = backend.counters()
        for dscp, port, count in ((0, 0, 2), (46, 0, 5), (0, 5001, 3), (46, 5001, 1)):
            sender, receiver = udp_pair(backend, uplink=True, port=port)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
            for _ in range(count):
                sender.send(bytes(100))
                receiver.recv(200)
            sender.close()
            receiver.close()
        first, second = watch.by_class()
        wire = backend.counters().wire_since(before).up.wire_bytes
        return first, [sum(counts) for counts in second.values()], int(wire[0])


@pytest.mark.parametrize("factory", [lite_backend, RelayBackend])
def test_what_each_packet_class_sent_adds_up_to_the_link(factory: Factory, tmp_path: Path) -> None:
    if factory is RelayBackend and not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    first, second, wire = in_sandbox(by_class, factory, tmp_path)
    assert first["up_class_packets"] == [2, 6, 3]
    assert first["up_class_bytes"] == [DATAGRAM_FRAME_BYTES * n for n in (2, 6, 3)]
    assert sum(first["up_class_bytes"]) == wire
    assert first["down_class_packets"] == first["down_class_bytes"] == [0, 0, 0]
    assert first["up_class_overflowed"] == [0, 0, 0]
    assert second == [0, 0, 0, 0, 0, 0]


def overflowing(folder: Path) -> tuple[int, int]:
    """Fill the queue of a slow link; return frames that it refused, and bytes that are too many."""
    backend = make_backend(1, 1e6)
    backend.apply(make_tick(1, 1e6))
    with log(folder) as events, contextlib.closing(ByteWatch(backend, events)) as watch:
        before = backend.counters()
        # A first flight of ten segments and a slow start do not fit into eight frames.
        client, server = tcp_pair(backend, 0)
        client.sendall(bytes(60_000))
        left = 60_000
        while left:
            left -= len(server.recv(left))
        watch.update()
        account = watch.accounts()[0]
        wire = int(backend.counters().wire_since(before).up.wire_bytes[0])
    sent = account["up_tcp_bytes"] + account["up_tcp_header_bytes"]
    too_many = sent + 14 * account["up_tcp_segments"] - account["up_waiting_bytes"] - wire
    return account["up_overflowed_packets"], too_many


def test_what_a_full_queue_refuses_is_counted_by_tcp_and_not_by_the_link(tmp_path: Path) -> None:
    refused, too_many = in_sandbox(overflowing, tmp_path)
    assert refused > 0
    # Options of selective acknowledgements are in neither.
    assert abs(too_many - refused * 1514) <= 1514


def unseen(folder: Path) -> dict[str, Any]:
    def refuse(*_: object) -> None:
        raise OSError("the kernel does not know the protocol")

    byte_watch.TcpWatch = refuse  # type: ignore[assignment, misc]
    return seen(lite_backend, folder)


def test_without_news_of_connections_an_event_says_why(tmp_path: Path) -> None:
    found = in_sandbox(unseen, tmp_path)
    assert "connections" not in found
    assert "up_tcp_bytes" not in found
    assert found["up_device_end_bytes"] > 20_000
    (event,) = read_events(tmp_path / "emulator-0.jsonl")
    assert event["event"] == "connections_unseen"
    assert event["reason"] == "the kernel does not know the protocol"
