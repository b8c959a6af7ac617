"""Connections that are broken off with what waits in their buffers."""

import socket

import pytest

from fadelab_proto.tcp_info import abort

DSCP = 23


def fill(connection: socket.socket) -> int:
    """Send until no buffer has room; return how much that was."""
    sent = 0
    try:
        while True:
            sent += connection.send(bytes(1 << 16))
    except BlockingIOError:
        return sent


def drain(connection: socket.socket) -> int:
    """Return how much came before the connection was reset; fail if it ended otherwise."""
    received = 0
    try:
        while chunk := connection.recv(1 << 16):
            received += len(chunk)
    except ConnectionResetError:
        return received
    raise AssertionError("the connection was closed, not reset")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_only_connections_with_the_mark_are_reset_and_unsent_data_never_comes(family: int) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=socket.AddressFamily(family)) as listening:
        marked, plain = (socket.create_connection(listening.getsockname()[:2]) for _ in range(2))
        others = [listening.accept()[0] for _ in range(2)]
        if family == socket.AF_INET:
            marked.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, DSCP << 2)
        else:
            marked.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, DSCP << 2)
        marked.setblocking(False)
        sent = fill(marked)
        said = abort(DSCP)
        # What the kernel had sent by the reset, and no more, can have come.
        assert drain(others[0]) <= said.bytes_sent < sent
        assert said.segments_sent > 0
        assert said.header_bytes >= 40 * said.segments_sent
        assert abort(DSCP).bytes_sent == 0
        plain.sendall(b"still here")
        assert others[1].recv(100) == b"still here"
        for end in (marked, plain, *others):
            end.close()
