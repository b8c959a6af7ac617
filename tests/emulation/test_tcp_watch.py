"""The kernel's account of TCP connections, open and gone, against its interface counters."""

import errno
import socket
import time
from typing import Any

import pytest
from sandboxed import in_sandbox, make_backend, make_tick, tcp_pair

from fadelab_emulation.backends.topology import device_address
from fadelab_emulation.netlink.message import NETLINK_SOCK_DIAG, NetlinkSocket
from fadelab_emulation.netlink.tcp_diag import parse_connection
from fadelab_emulation.tcp_watch import TcpWatch

pytestmark = pytest.mark.namespaces
ETHERNET_BYTES = 14
PATIENCE_S = 10.0


def carry(client: socket.socket, server: socket.socket, size: int) -> None:
    client.sendall(bytes(size))
    left = size
    while left:
        left -= len(server.recv(left))


def wait_for(watch: TcpWatch, connections: int) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while watch.connections(0) < connections and time.monotonic() < give_up_s:
        time.sleep(0.01)
        watch.update()


def open_and_gone() -> dict[str, Any]:
    backend = make_backend(2, 20e6)
    backend.apply(make_tick(2, 20e6))
    watch = TcpWatch(backend.namespaces, [device_address(0), device_address(1)])
    before = backend.counters()
    for _ in range(3):
        client, server = tcp_pair(backend, 0)
        carry(client, server, 100_000)
        carry(server, client, 3_000)
        client.close()
        server.close()
    wait_for(watch, 3)
    gone = watch.connections(0)
    kept = tcp_pair(backend, 1)
    carry(*kept, 5_000)
    up, down = watch.sent()
    again = watch.sent()
    wire = backend.counters().wire_since(before)
    return {
        "gone": gone,
        "complete": watch.is_complete,
        "sent": (up, down),
        "again": again,
        "wire": (wire.up.wire_bytes.tolist(), wire.down.wire_bytes.tolist()),
    }


def test_all_connections_add_up_to_what_crossed_the_links() -> None:
    found = in_sandbox(open_and_gone)
    assert found["gone"] == 3
    assert found["complete"]
    up, down = found["sent"]
    assert [one.bytes_sent - one.bytes_retransmitted for one in up] == [300_000, 5_000]
    assert [one.bytes_sent - one.bytes_retransmitted for one in down] == [9_000, 0]
    assert found["again"][0][0] == up[0]
    for sent, wire in zip(found["sent"], found["wire"], strict=True):
        for one, crossed in zip(sent, wire, strict=True):
            explained = one.bytes_sent + one.header_bytes + ETHERNET_BYTES * one.segments_sent
            # Less than one segment: those of the last moment, and selective acknowledgements.
            assert abs(explained - crossed) < 250


def overflowing() -> tuple[bool, int]:
    backend = make_backend(1, 20e6)
    backend.apply(make_tick(1, 20e6))
    watch = TcpWatch(backend.namespaces, [device_address(0)])
    refused = errno.ENOBUFS, "no room"

    def no_room() -> list[bytes]:
        raise OSError(*refused)

    place = watch._places[0]
    heard, place.netlink.unasked = place.netlink.unasked, no_room  # type: ignore[method-assign]
    client, server = tcp_pair(backend, 0)
    carry(client, server, 1_000)
    sent = watch.sent()[0][0].bytes_sent
    place.netlink.unasked = heard  # type: ignore[method-assign]
    return watch.is_complete, sent


def test_news_that_were_lost_are_admitted() -> None:
    complete, sent = in_sandbox(overflowing)
    assert not complete
    assert sent == 1_000


def nothing_told() -> list[bytes]:
    with NetlinkSocket(NETLINK_SOCK_DIAG) as netlink:
        netlink.join(1)
        return netlink.unasked()


def test_where_nothing_happened_nothing_is_told_and_nobody_waits() -> None:
    assert in_sandbox(nothing_told) == []


def test_what_is_no_connection_over_ipv4_is_passed_over() -> None:
    message = bytearray(72)
    message[0] = socket.AF_INET6
    message[24:40] = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    assert parse_connection(bytes(message)) is None
    message[24:40] = socket.inet_pton(socket.AF_INET6, "::ffff:10.77.1.1")
    assert parse_connection(bytes(message)) is None  # it lacks the kernel's figures
