"""Telling TCP to slow down without losing a packet (Explicit Congestion Notification, RFC 3168)."""

_ECN_MASK = 0b11
_NOT_CAPABLE, _CONGESTION_EXPERIENCED = 0b00, 0b11


def congestion_experienced(packet: bytes) -> bytes:
    """Return an IPv4 packet with the mark of congestion, or as it is if its sender ignores marks.

    The header checksum follows by RFC 1624, equation 3.
    """
    old = packet[1]
    if old & _ECN_MASK in (_NOT_CAPABLE, _CONGESTION_EXPERIENCED):
        return packet
    new = old | _CONGESTION_EXPERIENCED
    checksum = int.from_bytes(packet[10:12], "big")
    total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~total & 0xFFFF
    return b"%c%c%b%b%b" % (packet[0], new, packet[2:10], checksum.to_bytes(2, "big"), packet[12:])
