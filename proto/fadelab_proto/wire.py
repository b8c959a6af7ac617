"""How the data plane's streams are framed, and the gRPC settings that both ends share.

The messages of ``Transfer`` are protobuf on the wire, as federation.proto says, so any gRPC client
can speak them. Packets are framed by hand all the same: protobuf's own classes copy a bytes field
two to four times on its way through Python, a hand-written tag and length cost nothing.
"""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import HEADER_BYTES, MAX_PAYLOAD_BYTES

PROTOCOL_VERSION = 3
NEWEST_VERSION = 0xFFFFFFFF
SERVICE = "fadelab.v1.Transfer"

# 64 KiB of slack: control messages are far smaller, and a declared size beyond this is refused by
# gRPC itself before it is read.
MAX_MESSAGE_BYTES = MAX_PAYLOAD_BYTES + HEADER_BYTES + 65536

# Requests that are no packets: the longest, a Join that offers 255 tasks, has a tenth of it.
MAX_CONTROL_BYTES = 65536

_NEVER_MS = 2**31 - 1
# Wire type 2 (length-delimited): field 2 in UploadPart, ModelPart and WholeUpload, field 1 in the last.
_PACKET_TAG = 0x12
_HEADER_TAG = 0x0A
_Head = TypeVar("_Head", bound=Message)


class FramingError(ValueError):
    """The bytes of a stream message are not what federation.proto allows."""


def channel_options() -> list[tuple[str, int]]:
    """Return the gRPC options of every client channel.

    Retries are off because Fadelab resumes uploads itself; the reconnect back-off is short because
    links come back without notice; a local subchannel pool keeps channels of one process from
    sharing a TCP connection.
    """
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_retries", 0),
        ("grpc.keepalive_time_ms", _NEVER_MS),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http_proxy_enabled", 0),
    ]


def server_options() -> list[tuple[str, int]]:
    """Return the gRPC options of every server: bounded messages, and a port of its own.

    Without ``so_reuseport=0`` a second server on the same port would start without an error and
    take half of the connections. Turning keepalive off also turns off TCP_USER_TIMEOUT (gRFC A18),
    which would reset connections that wait for the next contact window for more than 20 s.
    """
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", _NEVER_MS),
    ]


def frame_packet(packet: bytes) -> bytes:
    """Return an ``UploadPart`` or ``ModelPart`` that holds ``packet``."""
    return b"".join((_prefix(_PACKET_TAG, len(packet)), packet))


def frame_whole_upload(header: pb.UploadHeader, packet: bytes) -> bytes:
    """Return a ``WholeUpload`` of these."""
    head = header.SerializeToString()
    tags = _prefix(_HEADER_TAG, len(head)), _prefix(_PACKET_TAG, len(packet))
    return b"".join((tags[0], head, tags[1], packet))


def serialize_part(part: Message | bytes) -> bytes:
    """Serialise one stream message: a packet given as bytes, or a protobuf message."""
    return frame_packet(part) if isinstance(part, bytes) else part.SerializeToString()


def parse_upload_part(
    data: bytes,
) -> pb.UploadHeader | pb.UploadClose | pb.UploadQuery | memoryview:
    """Return the header, the close, the query or a view of the packet of an ``UploadPart``.

    Raises:
        FramingError: if ``data`` is none of these.

    """
    packet = _packet_view(data)
    if packet is not None:
        return packet
    part = _parse(pb.UploadPart(), data)
    match part.WhichOneof("part"):
        case "header":
            return part.header
        case "close":
            return part.close
        case "query":
            return part.query
    raise FramingError("an upload message holds neither a header nor one whole packet")


def parse_whole_upload(data: bytes) -> tuple[pb.UploadHeader, memoryview]:
    """Return the header and a view of the packet of a ``WholeUpload``.

    Raises:
        FramingError: if ``data`` is not a header and then a packet.

    """
    if not data or data[0] != _HEADER_TAG:
        raise FramingError("an update in one message must begin with its header")
    begin, end = _extent(data, 0)
    if end >= len(data) or data[end] != _PACKET_TAG:
        raise FramingError("an update's header is not followed by its packet")
    return _parse(pb.UploadHeader(), data[begin:end]), _rest(data, end)


def parse_model_part(data: bytes) -> pb.ModelInfo | memoryview:
    """Return the info or a view of the packet of a ``ModelPart``.

    Raises:
        FramingError: if ``data`` is neither.

    """
    packet = _packet_view(data)
    if packet is not None:
        return packet
    part = _parse(pb.ModelPart(), data)
    if part.WhichOneof("part") != "info":
        raise FramingError("a model message holds neither an info nor one whole packet")
    return part.info


def _parse(message: _Head, data: bytes) -> _Head:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise FramingError(f"not a protobuf message: {error}") from None
    return message


def _prefix(tag: int, length: int) -> bytes:
    prefix = bytearray((tag,))
    while length >= 0x80:
        prefix.append((length & 0x7F) | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix)


def _packet_view(data: bytes) -> memoryview | None:
    """Return the packet if ``data`` is exactly one tag, one minimal length and that many bytes."""
    if not data or data[0] != _PACKET_TAG:
        return None
    return _rest(data, 0)


def _rest(data: bytes, tag_at: int) -> memoryview:
    """Return the field whose tag stands there; the message must end with it."""
    begin, end = _extent(data, tag_at)
    if end != len(data):
        raise FramingError("a packet's declared length does not match the message that holds it")
    return memoryview(data)[begin:]


def _extent(data: bytes, tag_at: int) -> tuple[int, int]:
    """Return where the length-delimited field begins whose tag stands there, and where it ends."""
    length = shift = 0
    for position in range(tag_at + 1, min(len(data), tag_at + 6)):
        byte = data[position]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return position + 1, position + 1 + length
    raise FramingError("a message ends within a declared length, or declares one beyond 4 GiB")
