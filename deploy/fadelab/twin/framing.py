"""How many bytes TCP has to carry for an update or a model."""

import math

from fadelab_proto.packet import HEADER_BYTES

_HTTP2_FRAME_BYTES = 16384
"""Most content of a DATA frame unless the ends agree on more (RFC 9113, section 4.2)."""
_HTTP2_HEADER_BYTES = 9
_GRPC_PREFIX_BYTES = 5
"""Before each message: whether it is compressed, and its length."""
_VARINT_BITS = 7


def message_bytes(payload_bytes: float, packets: int) -> float:
    """Return what TCP carries: payloads, packet headers, and the frames of protobuf, gRPC and HTTP/2.

    Left out are the headers of the call and the announcement of an update, some 100 bytes.

    Args:
        payload_bytes: what the codec wrote, of all packets.
        packets: how many there are, at least 1; they count as equally long.

    """
    packet = payload_bytes / packets + HEADER_BYTES
    tag = 1 + math.ceil(int(packet).bit_length() / _VARINT_BITS)
    message = packet + tag + _GRPC_PREFIX_BYTES
    frames = math.ceil(message / _HTTP2_FRAME_BYTES)
    return packets * (message + frames * _HTTP2_HEADER_BYTES)
