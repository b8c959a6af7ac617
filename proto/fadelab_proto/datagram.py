"""How large a packet may be that travels in one UDP datagram, and what the link adds to it."""

from fadelab_proto.packet import HEADER_BYTES

ETHERNET_MTU_BYTES = 1500
IPV4_UDP_BYTES = 20 + 8
"""Headers of IPv4 without options (RFC 791) and of UDP (RFC 768)."""
FRAME_OVERHEAD_BYTES = 14 + IPV4_UDP_BYTES
"""What a link carries on top of a datagram's content: these and the Ethernet header."""

# A host may refuse what is longer than 576 bytes, and nothing shorter (RFC 791, section 3.1).
_LEAST_MTU_BYTES = 576
_LARGEST_MTU_BYTES = 65535


def datagram_bytes(mtu_bytes: int = ETHERNET_MTU_BYTES) -> int:
    """Return how many bytes, a packet's header included, one datagram holds without fragments.

    Raises:
        ValueError: if ``mtu_bytes`` is not from 576 to 65535.

    """
    if not _LEAST_MTU_BYTES <= mtu_bytes <= _LARGEST_MTU_BYTES:
        raise ValueError(
            f"an MTU of {mtu_bytes} bytes is not from {_LEAST_MTU_BYTES} to {_LARGEST_MTU_BYTES}"
        )
    return mtu_bytes - IPV4_UDP_BYTES


def datagram_payload_bytes(mtu_bytes: int = ETHERNET_MTU_BYTES) -> int:
    """Return the largest payload of a packet that fits into one datagram: 1432 bytes by default.

    Raises:
        ValueError: if ``mtu_bytes`` is not from 576 to 65535.

    """
    return datagram_bytes(mtu_bytes) - HEADER_BYTES
