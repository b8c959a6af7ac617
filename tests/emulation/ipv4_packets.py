"""IPv4 packets for tests, made by hand."""

import socket
import struct

UDP, TCP, ICMP = 17, 6, 1


def ipv4(
    payload: bytes = b"",
    *,
    source: str = "10.77.1.1",
    destination: str = "10.77.0.1",
    protocol: int = UDP,
    dscp: int = 0,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """Return a packet with a header checksum of 0; ``fragment`` is flags and offset."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        dscp << 2,
        20 + len(options) + len(payload),
        0x1234,
        fragment,
        64,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    return header + options + payload


def ports(source: int, destination: int, rest: bytes = bytes(8)) -> bytes:
    """Return the beginning of a TCP or UDP header."""
    return struct.pack("!HH", source, destination) + rest
