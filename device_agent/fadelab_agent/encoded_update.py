"""From a codec's chunks to what the uplink sends: a header and packets."""

from collections.abc import Iterable
from dataclasses import dataclass

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.checksum import checksum
from fadelab_proto.codecs import Chunk, Encoding
from fadelab_proto.packet import Packet, parse_packet


@dataclass(frozen=True, slots=True)
class UpdateIdentity:
    """Whose update it is, of what."""

    run_id: int
    device: int
    session: int
    task_index: int
    update_id: int
    base_version: int
    dimension: int
    samples: int


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """An update ready to be sent."""

    header: pb.UploadHeader
    packets: tuple[bytes, ...]

    def chunks(self, sequences: Iterable[int] | None = None) -> list[Chunk]:
        """Return what these packets hold, of all packets if none are named, in their order."""
        chosen = range(len(self.packets)) if sequences is None else sorted(sequences)
        parsed = [parse_packet(self.packets[sequence]) for sequence in chosen]
        return [
            Chunk(
                codec=packet.codec,
                packet_class=packet.packet_class,
                first=packet.first,
                count=packet.count,
                payload=bytes(packet.payload),
            )
            for packet in parsed
        ]


def encode_update(identity: UpdateIdentity, encoding: Encoding) -> EncodedUpdate:
    """Wrap the chunks of an encoded vector into packets, in their order."""
    chunks = encoding.chunks
    packets = tuple(
        Packet(
            packet_class=chunk.packet_class,
            codec=chunk.codec,
            task_index=identity.task_index,
            device=identity.device,
            run_id=identity.run_id,
            update_id=identity.update_id,
            base_version=identity.base_version,
            first=chunk.first,
            count=chunk.count,
            sequence=sequence,
            packets=len(chunks),
            payload=chunk.payload,
        ).encode()
        for sequence, chunk in enumerate(chunks)
    )
    header = pb.UploadHeader(
        session=identity.session,
        task_index=identity.task_index,
        update_id=identity.update_id,
        base_version=identity.base_version,
        dimension=identity.dimension,
        packets=len(packets),
        payload_bytes=sum(len(chunk.payload) for chunk in chunks),
        samples=identity.samples,
        content=checksum(packets),
    )
    return EncodedUpdate(header, packets)
