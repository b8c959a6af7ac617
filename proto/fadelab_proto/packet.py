"""The packet: one self-standing piece of a model or of an update.

Layout (little-endian, 40 bytes before the payload)::

    offset  size  field
         0     2  magic 0xFADE
         2     1  format version
         3     1  packet class          (federation.proto, PacketClass)
         4     1  codec                 (federation.proto, Codec)
         5     1  task index
         6     2  device
         8     4  run
        12     4  update id             (0 for models)
        16     4  base version          (the version itself for models)
        20     4  first coordinate
        24     4  coordinates covered
        28     2  sequence number in the update, from 0
        30     2  packets in the update
        32     4  payload bytes
        36     4  CRC-32C of everything else (RFC 3720, section 12.1)

A packet says which coordinates it covers and how its payload is coded, so that any subset of an
update's packets can be used without the others. Parsing bounds every size before anything is
allocated and raises :class:`PacketError` for whatever is not a whole, undamaged packet.
"""

import struct
from dataclasses import dataclass

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.checksum import checksum

MAGIC = 0xFADE
FORMAT_VERSION = 1
HEADER_BYTES = 40
CLASS_OFFSET = 3
"""Where a packet's class stands in its header."""
MAX_PAYLOAD_BYTES = 1 << 20
MAX_PACKETS = 0xFFFF

_HEADER = struct.Struct("<HBBBBHIIIIIHHI")
_CHECKSUM = struct.Struct("<I")
_WHOLE_HEADER = struct.Struct(_HEADER.format + _CHECKSUM.format[1:])


class PacketError(ValueError):
    """The bytes are not a packet of this format, or they were damaged on the way."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A parsed packet; see the module's table for the fields."""

    packet_class: int
    codec: int
    task_index: int
    device: int
    run_id: int
    update_id: int
    base_version: int
    first: int
    count: int
    sequence: int
    packets: int
    payload: bytes | memoryview

    def encode(self) -> bytes:
        """Return header, checksum and payload as bytes.

        Raises:
            PacketError: if the payload is larger than ``MAX_PAYLOAD_BYTES``.

        """
        if len(self.payload) > MAX_PAYLOAD_BYTES:
            raise PacketError(
                f"a payload of {len(self.payload)} bytes exceeds the limit of {MAX_PAYLOAD_BYTES}"
            )
        header = _HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            self.packet_class,
            self.codec,
            self.task_index,
            self.device,
            self.run_id,
            self.update_id,
            self.base_version,
            self.first,
            self.count,
            self.sequence,
            self.packets,
            len(self.payload),
        )
        return b"".join((header, _CHECKSUM.pack(checksum((header, self.payload))), self.payload))


def parse_packet(data: bytes | memoryview) -> Packet:
    """Parse one whole packet; the payload is a view into ``data``, not a copy.

    Raises:
        PacketError: if ``data`` is too short or too long, has another magic or format version, an
            unknown class or codec, contradictory numbers, or a wrong checksum.

    """
    if len(data) < HEADER_BYTES:
        raise PacketError(f"{len(data)} bytes are fewer than a packet's header of {HEADER_BYTES}")
    fields = _WHOLE_HEADER.unpack_from(data)
    magic, version, payload_bytes, declared = fields[0], fields[1], fields[-2], fields[-1]
    if magic != MAGIC:
        raise PacketError(f"magic 0x{magic:04X} is not 0x{MAGIC:04X}")
    if version != FORMAT_VERSION:
        raise PacketError(f"format version {version} is not {FORMAT_VERSION}")
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise PacketError(f"declared payload of {payload_bytes} bytes exceeds {MAX_PAYLOAD_BYTES}")
    if len(data) != HEADER_BYTES + payload_bytes:
        raise PacketError(
            f"{len(data)} bytes received, but the header declares {HEADER_BYTES + payload_bytes}"
        )
    view = memoryview(data)
    payload = view[HEADER_BYTES:]
    if checksum((view[: HEADER_BYTES - 4], payload)) != declared:
        raise PacketError("CRC-32C does not match: the packet was damaged")
    packet = Packet(*fields[2:-2], payload)  # type: ignore[call-arg] # as many as are declared
    _check_numbers(packet)
    return packet


def class_name(number: int) -> str:
    """Return a known packet class's name as events and experiments have it: ``sign``, ``update``."""
    name = pb.PacketClass.Name(pb.PacketClass.ValueType(number))
    return name.removeprefix("PACKET_CLASS_").lower()


def _check_numbers(packet: Packet) -> None:
    if packet.packet_class not in _CLASSES:
        raise PacketError(f"packet class {packet.packet_class} is unknown")
    if packet.codec not in _CODECS:
        raise PacketError(f"codec {packet.codec} is unknown")
    if packet.count == 0:
        raise PacketError("the packet covers no coordinate")
    if packet.sequence >= packet.packets:
        raise PacketError(f"sequence number {packet.sequence} of {packet.packets} packets")


_CLASSES = frozenset(pb.PacketClass.values()) - {pb.PACKET_CLASS_UNSPECIFIED}
_CODECS = frozenset(pb.Codec.values()) - {pb.CODEC_UNSPECIFIED}
