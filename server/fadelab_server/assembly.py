"""Collecting the packets of one update, in any order, with duplicates, across reconnects."""

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import HEADER_BYTES, Packet, PacketError, parse_packet
from fadelab_proto.transfer_timer import TransferTimer

F32 = NDArray[np.float32]


class UpdateAssembly:
    """The packets of one update that have arrived, decoded as they come.

    Args:
        header: what the device announced; every packet must agree with it.
        device: the device's number.
        run_id: the run's identifier.
        now_s: monotonic second of the first announcement.

    """

    def __init__(self, header: pb.UploadHeader, *, device: int, run_id: int, now_s: float) -> None:
        self.header = header
        self.device = device
        self.started_s = now_s
        self.timer = TransferTimer(header.packets)
        self.payload_bytes = 0
        self.duplicates = 0
        self._run_id = run_id
        self._segments: dict[int, codecs.Segment] = {}

    @property
    def complete(self) -> bool:
        """Whether every packet has arrived."""
        return len(self._segments) == self.header.packets

    @property
    def sequences(self) -> list[int]:
        """Sequence numbers of the packets that have arrived, in order."""
        return sorted(self._segments)

    def resumed_by(self, header: pb.UploadHeader) -> bool:
        """Whether ``header`` announces this very update again, perhaps in a new session."""
        mine = self.header
        return (header.update_id, header.base_version, header.packets, header.content) == (
            mine.update_id,
            mine.base_version,
            mine.packets,
            mine.content,
        )

    def add(self, data: memoryview, now_s: float) -> None:
        """Take one packet; a second copy of a packet is counted and otherwise ignored.

        Raises:
            PacketError: if it is damaged or does not belong to this update.
            CodecError: if its payload was not produced by its codec.

        """
        packet = parse_packet(data)
        self._check(packet)
        if packet.sequence in self._segments:
            self.duplicates += 1
            return
        if self.payload_bytes + len(packet.payload) > self.header.payload_bytes:
            raise PacketError(
                f"payloads exceed the announced total of {self.header.payload_bytes} bytes"
            )
        self._segments[packet.sequence] = codecs.decode(
            packet.codec, packet.payload, first=packet.first, count=packet.count
        )
        self.timer.arrived(HEADER_BYTES + len(packet.payload), now_s)
        self.payload_bytes += len(packet.payload)

    def vector(self) -> F32:
        """Return the entries that arrived, zero elsewhere; shape ``(dimension,)``."""
        result = np.zeros(self.header.dimension, dtype=np.float32)
        for sequence in self.sequences:
            self._segments[sequence].add_to(result)
        return result

    def _check(self, packet: Packet) -> None:
        expected = {
            "class": (packet.packet_class, pb.PACKET_CLASS_UPDATE),
            "run": (packet.run_id, self._run_id),
            "device": (packet.device, self.device),
            "task": (packet.task_index, self.header.task_index),
            "update": (packet.update_id, self.header.update_id),
            "base version": (packet.base_version, self.header.base_version),
            "packet count": (packet.packets, self.header.packets),
        }
        for name, (found, wanted) in expected.items():
            if found != wanted:
                raise PacketError(f"the packet's {name} is {found}, the announced one {wanted}")
        if packet.first + packet.count > self.header.dimension:
            raise PacketError(
                f"the packet covers coordinates up to {packet.first + packet.count}, "
                f"the model has {self.header.dimension}"
            )
