"""Collecting the packets of one update, in any order, with duplicates, across reconnects."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import HEADER_BYTES, Packet, PacketError, parse_packet
from fadelab_proto.ranges import RangeSet
from fadelab_proto.transfer_timer import TransferTimer
from fadelab_server.model_store import Version

_PARTS = frozenset((pb.PACKET_CLASS_SIGN, pb.PACKET_CLASS_MODULUS))
_CLASSES = frozenset((pb.PACKET_CLASS_UPDATE, pb.PACKET_CLASS_SIGN, pb.PACKET_CLASS_MODULUS))


@dataclass(frozen=True, slots=True)
class Held:
    """A packet that has arrived."""

    position: int
    """Where its record begins in the journal."""
    size: int
    packet: Packet | None
    """None if only the journal still has it."""


class ClassShare(NamedTuple):
    """What has arrived in packets of one class."""

    packets: int
    payload_bytes: int

    def with_one_more(self, payload_bytes: int) -> "ClassShare":
        """Return the same after one more packet."""
        return ClassShare(self.packets + 1, self.payload_bytes + payload_bytes)


class UpdateAssembly:
    """The packets of one update that have arrived.

    Args:
        header: what the device announced; every packet must agree with it.
        base: the version that local training started from.
        device: the device's number.
        run_id: the run's identifier.
        now_s: monotonic second of the first announcement.
        position: where its announcement begins in the journal.

    """

    def __init__(
        self,
        header: pb.UploadHeader,
        base: Version,
        *,
        device: int,
        run_id: int,
        now_s: float,
        position: int = 0,
    ) -> None:
        self.header = header
        self.base = base
        self.device = device
        self.started_s = now_s
        self.position = position
        self.timer = TransferTimer(header.packets)
        self.received = RangeSet()
        """Sequence numbers of the packets that have arrived."""
        self.payload_bytes = 0
        self.by_class: dict[int, ClassShare] = {}
        """Of what has arrived, by packet class."""
        self.in_datagrams = ClassShare(0, 0)
        """Of what has arrived, what came in datagrams."""
        self.duplicates = 0
        self.watchers: set[Callable[[], None]] = set()
        """Called when every packet has arrived, and when it is collected no longer."""
        self.memory_bytes = 0
        """What is held of it outside the journal."""
        self._run_id = run_id
        self._held: dict[int, Held] = {}

    @property
    def complete(self) -> bool:
        """Whether every packet has arrived."""
        return len(self.received) == self.header.packets

    @property
    def in_parts(self) -> bool:
        """Whether signs and moduli of its entries come in packets of their own."""
        return not _PARTS.isdisjoint(self.by_class)

    @property
    def in_memory(self) -> bool:
        """Whether nothing of what has arrived must be read back from the journal."""
        return all(held.packet is not None for held in self._held.values())

    def resumed_by(self, header: pb.UploadHeader) -> bool:
        """Whether ``header`` announces this very update again, perhaps in a new session."""
        return _identity(header) == _identity(self.header)

    def accept(self, data: memoryview) -> Packet | None:
        """Return a packet to be held, or None for a second copy, which is counted.

        Raises:
            PacketError: if it is damaged or does not belong to this update.

        """
        return self.accept_parsed(parse_packet(data))

    def accept_parsed(self, packet: Packet) -> Packet | None:
        """Do as :meth:`accept` with a packet that was found undamaged before.

        Raises:
            PacketError: if it does not belong to this update.

        """
        self._check(packet)
        if packet.sequence in self.received:
            self.duplicates += 1
            return None
        if self.payload_bytes + len(packet.payload) > self.header.payload_bytes:
            raise PacketError(
                f"payloads exceed the announced total of {self.header.payload_bytes} bytes"
            )
        return packet

    def hold(self, packet: Packet, held: Held, now_s: float) -> None:
        """Count a packet that :meth:`accept` returned as received."""
        self._held[packet.sequence] = held
        self.received.add(packet.sequence)
        self.payload_bytes += len(packet.payload)
        share = self.by_class.get(packet.packet_class, ClassShare(0, 0))
        self.by_class[packet.packet_class] = share.with_one_more(len(packet.payload))
        self.timer.arrived(HEADER_BYTES + len(packet.payload), now_s)
        if held.packet is not None:
            self.memory_bytes += held.size

    def wake(self) -> None:
        """Call the watchers."""
        for watcher in tuple(self.watchers):
            watcher()

    def segments(self, read: Callable[[int, int], bytes]) -> list[codecs.Segment]:
        """Decode what has arrived, in the order of the packets.

        Args:
            read: returns what the journal holds at a position, of a given length.

        Raises:
            CodecError: if a payload is not of the format that its packet names.

        """
        return [
            codecs.decode(packet.codec, packet.payload, first=packet.first, count=packet.count)
            for packet in self.packets(read)
        ]

    def packets(self, read: Callable[[int, int], bytes]) -> Iterator[Packet]:
        """Yield what has arrived, in the order of the packets; arguments as of :meth:`segments`."""
        for sequence in self.received:
            held = self._held[sequence]
            yield held.packet or parse_packet(read(held.position, held.size))

    def _check(self, packet: Packet) -> None:
        expected = {
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
        if packet.packet_class not in _CLASSES:
            raise PacketError(f"the packet's class {packet.packet_class} is not one of an update")
        if packet.first + packet.count > self.header.dimension:
            raise PacketError(
                f"the packet covers coordinates up to {packet.first + packet.count}, "
                f"the model has {self.header.dimension}"
            )


def _identity(header: pb.UploadHeader) -> pb.UploadHeader:
    """Return what holds for an update however often, and on whatever streams, it is announced."""
    same = pb.UploadHeader()
    same.CopyFrom(header)
    for of_this_stream in ("session", "datagram_classes"):
        same.ClearField(of_this_stream)
    return same
