"""The answer of a router that cannot reach the destination host, built by hand."""

import struct

_ICMP = 1
_DESTINATION_UNREACHABLE, _HOST_UNREACHABLE = 3, 1
_QUERIES = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})
"""ICMP types that are no error messages (RFC 792, RFC 950, RFC 1256)."""
_QUOTED_BYTES = 8
_TTL = 64
_PRECEDENCE_INTERNETWORK_CONTROL = 0xC0
_FRAGMENT_OFFSET = 0x1FFF

_HEADER = struct.Struct("!BBHHHBBH4s4s")
_UNREACHABLE = struct.Struct("!BBHI")


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071) of ``data``; 0 if ``data`` holds its own."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def host_unreachable(packet: bytes) -> bytes | None:
    """Return the ICMP error (type 3, code 1) that tells the sender of an IPv4 ``packet``.

    It quotes the packet's IP header and 8 bytes more (RFC 792). It seems to come from the
    destination, to which the sender has a route; whatever filters by reverse path lets it in.
    Nothing is sent about ICMP errors, later fragments, and packets from or to no single host
    (RFC 1122, 3.2.2): the result is None then.
    """
    header_bytes = (packet[0] & 0x0F) * 4
    if header_bytes < _HEADER.size or len(packet) < header_bytes:
        return None
    if not _deserves_answer(packet, header_bytes):
        return None
    quoted = packet[: header_bytes + _QUOTED_BYTES]
    body = _UNREACHABLE.pack(_DESTINATION_UNREACHABLE, _HOST_UNREACHABLE, 0, 0) + quoted
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    source, destination = packet[12:16], packet[16:20]
    header = _HEADER.pack(
        0x45,
        _PRECEDENCE_INTERNETWORK_CONTROL,
        _HEADER.size + len(body),
        0,
        0,
        _TTL,
        _ICMP,
        0,
        destination,
        source,
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + body


def _deserves_answer(packet: bytes, header_bytes: int) -> bool:
    if int.from_bytes(packet[6:8], "big") & _FRAGMENT_OFFSET:
        return False
    if packet[9] == _ICMP and (len(packet) <= header_bytes or packet[header_bytes] not in _QUERIES):
        return False
    source, destination = packet[12], packet[16]
    return source not in (0, 127) and source < 224 and destination < 224
