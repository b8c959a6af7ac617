"""Packets of unfinished uploads that come as datagrams, from the receiver into the run."""

from collections import Counter
from collections.abc import Sequence

from fadelab_proto.packet import PacketError, class_name
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.datagrams import ArrivedPacket, DatagramReceiver
from fadelab_server.federation import Federation
from fadelab_server.reading import BACKLOG_BYTES


class DatagramIntake:
    """Receive packets of updates that devices have announced, and count all others.

    Nobody is told of a datagram that is not taken: a damaged or foreign one must not end an upload.

    Args:
        federation: the run; it learns the port.
        address: IPv4 address and port to listen on; port 0 takes any.

    Raises:
        OSError: if the address cannot be had.

    """

    def __init__(self, federation: Federation, address: tuple[str, int]) -> None:
        self._federation = federation
        self._receiver = DatagramReceiver(
            address,
            self._deliver,
            run_id=federation.config.run_id,
            devices=range(federation.config.devices),
            clock=federation.clock,
        )
        self._not_taken: Counter[str] = Counter()
        federation.datagram_port = self._receiver.address[1]

    def start(self) -> None:
        """Begin to receive."""
        self._receiver.start()

    def stop(self) -> None:
        """Stop receiving, release the address and log what came, by device and packet class."""
        found = self._receiver.stop()
        for (device, number), flow in sorted(found.flows.items()):
            self._federation.log.write(
                "datagrams_received",
                device=device,
                packet_class=class_name(number),
                packets=flow.packets,
                packet_bytes=flow.packet_bytes,
                overrun_packets=flow.overrun_packets,
            )
        self._federation.log.write(
            "datagram_receiver",
            damaged_packets=found.damaged_packets,
            unknown_packets=found.unknown_packets,
            unannounced_packets=self._not_taken["unannounced"],
            refused_packets=self._not_taken["refused"],
            backlog_packets=self._not_taken["backlog"],
            socket_drops=found.socket_drops,
            receive_buffer_bytes=found.receive_buffer_bytes,
        )

    def _deliver(self, batch: Sequence[ArrivedPacket]) -> None:
        for arrived in batch:
            problem = self._take(arrived)
            if problem is not None:
                self._not_taken[problem] += 1

    def _take(self, arrived: ArrivedPacket) -> str | None:
        """Add a packet to its update; return why not, if it is not added."""
        federation, packet = self._federation, arrived.packet
        assembly = federation.uploads.get((packet.task_index, packet.device))
        if (
            assembly is None
            or federation.stop_reason is not None
            or packet.update_id != assembly.header.update_id
            or packet.packet_class not in assembly.header.datagram_classes
        ):
            return "unannounced"
        # Datagrams know no back-pressure: what the disk cannot take in time is lost on the way.
        if federation.keeper.log.backlog_bytes > BACKLOG_BYTES:
            return "backlog"
        try:
            federation.add_datagram(assembly, packet, arrived.data, arrived.arrived_s)
        except PacketError:
            return "refused"
        except CheckpointError as error:
            federation.stop(str(error))
            return "refused"
        return None
