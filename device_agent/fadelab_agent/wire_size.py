"""How many bits an update takes on the link, headers of all layers included."""

import math

from fadelab_proto.codecs import Encoding
from fadelab_proto.packet import HEADER_BYTES

_SEGMENT_BYTES = 1448
"""Payload of a TCP segment with time stamps (RFC 7323) in an MTU of 1500."""
_FRAME_BYTES = 66
"""Ethernet 14, IPv4 20, TCP 32."""
_MESSAGE_BYTES = 5 + 9 + 4
"""gRPC's prefix, HTTP/2's frame header (RFC 9113) and the message's tag and length."""
_OPENING_BYTES = 200
"""The call's headers and the announcement of the update."""


def wire_bits(encoding: Encoding) -> int:
    """Return the layer-2 bits of an update that nothing else shares its connection with.

    Retransmissions are left out; 0 for an update of no packets.
    """
    if not encoding.chunks:
        return 0
    return _stream_bits(sum(len(chunk.payload) for chunk in encoding.chunks), len(encoding.chunks))


def full_precision_wire_bits(entries: int, *, max_payload_bytes: int) -> int:
    """Return the layer-2 bits of an update whose entries have 32 bits each.

    Args:
        entries: of the model.
        max_payload_bytes: of a packet.

    """
    packets = math.ceil(entries / (max_payload_bytes // 4))
    return _stream_bits(4 * entries, packets)


def _stream_bits(payload_bytes: int, packets: int) -> int:
    stream = _OPENING_BYTES + payload_bytes + packets * (HEADER_BYTES + _MESSAGE_BYTES)
    return 8 * (stream + _FRAME_BYTES * math.ceil(stream / _SEGMENT_BYTES))
