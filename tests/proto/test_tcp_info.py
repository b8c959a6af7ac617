"""Counters of this process's TCP connections, and hanging up."""

import socket
import sys
from collections.abc import Iterator

import pytest

from fadelab_proto.process_memory import private_memory_mib
from fadelab_proto.tcp_info import NOTHING_SENT, TcpCounters, TcpLedger, hang_up, parse_tcp_info

Pair = tuple[socket.socket, socket.socket]


def connect(address: str, family: socket.AddressFamily) -> Iterator[Pair]:
    with (
        socket.create_server((address, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        server, _ = listener.accept()
        with server:
            yield client, server


@pytest.fixture
def pair() -> Iterator[Pair]:
    yield from connect("127.0.0.1", socket.AF_INET)


def send(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    sender.sendall(bytes(size))
    left = size
    while left:
        left -= len(receiver.recv(left))


def test_sent_bytes_are_counted_for_each_remote(pair: Pair) -> None:
    client, server = pair
    ledger = TcpLedger()
    ledger.update()
    before = ledger.total()
    send(client, server, 10000)
    send(server, client, 500)
    ledger.update()
    assert ledger.total().bytes_sent - before.bytes_sent == 10500
    assert ledger.total().bytes_retransmitted >= before.bytes_retransmitted
    assert ledger.by_remote()["127.0.0.1"] == ledger.total()


def test_a_closed_connection_keeps_its_last_counters(pair: Pair) -> None:
    client, server = pair
    ledger = TcpLedger()
    send(client, server, 1234)
    ledger.update()
    counted = ledger.total()
    client.close()
    server.close()
    ledger.update()
    assert ledger.total() == counted


def test_updating_twice_counts_once(pair: Pair) -> None:
    client, server = pair
    ledger = TcpLedger()
    send(client, server, 1234)
    ledger.update()
    counted = ledger.total()
    ledger.update()
    assert ledger.total() == counted


def test_addresses_mapped_into_ipv6_are_told_as_ipv4() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::", 0))
        except OSError as error:
            pytest.skip(f"no sockets for IPv4 and IPv6 together: {error}")
        listener.listen()
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client:
            server, _ = listener.accept()
            with server:
                send(server, client, 100)
                ledger = TcpLedger()
                ledger.update()
    assert all(":" not in remote for remote in ledger.by_remote())


def test_the_ledger_leaves_the_descriptors_open(pair: Pair) -> None:
    client, server = pair
    TcpLedger().update()
    send(client, server, 10)


def test_counters_add_up() -> None:
    assert TcpCounters(1, 2, 3, 4) + TcpCounters(10, 20, 30, 40) == TcpCounters(11, 22, 33, 44)
    assert TcpLedger().total() == NOTHING_SENT


@pytest.mark.parametrize(("options", "header"), [(0b0111, 52), (0b0110, 40)])
def test_headers_follow_from_segments_and_the_timestamps_option(options: int, header: int) -> None:
    info = bytearray(232)
    info[5] = options
    info[136:140] = (7).to_bytes(4, sys.byteorder)
    info[200:208] = (9000).to_bytes(8, sys.byteorder)
    info[208:216] = (1448).to_bytes(8, sys.byteorder)
    assert parse_tcp_info(bytes(info)) == TcpCounters(9000, 1448, 7, 7 * header)


def test_an_old_kernels_figures_are_none() -> None:
    assert parse_tcp_info(bytes(215)) is None


def test_segments_are_counted_with_their_headers(pair: Pair) -> None:
    client, server = pair
    send(client, server, 1000)
    ledger = TcpLedger()
    ledger.update()
    found = ledger.total()
    assert found.segments_sent >= 3
    assert found.header_bytes in (40 * found.segments_sent, 52 * found.segments_sent)


def test_hanging_up_ends_connections_on_both_sides(pair: Pair) -> None:
    client, server = pair
    hang_up()
    assert client.recv(1) == b""
    assert server.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        client.sendall(b"x")


def test_hanging_up_leaves_other_sockets_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        hang_up()
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()


def test_private_memory_grows_with_what_is_written() -> None:
    before = private_memory_mib()
    written = bytearray(b"x") * (64 << 20)
    assert private_memory_mib() - before > 50
    assert len(written) == 64 << 20
