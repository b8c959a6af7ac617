"""The connections and sockets over which a device's updates travel."""

import contextlib
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from fadelab_agent.datagram_uplink import DatagramSender, DatagramTerms
from fadelab_agent.membership import RefusedError
from fadelab_agent.radio import Radio
from fadelab_agent.routes import ClassRoutes, DatagramRoute, UplinkShares, lanes
from fadelab_agent.trust import ServerDoor
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.packet import CLASS_OFFSET
from fadelab_proto.wire import SERVICE, frame_whole_upload, serialize_part

_UPLOAD, _UPLOAD_WHOLE = f"/{SERVICE}/UploadUpdate", f"/{SERVICE}/UploadWhole"
Call = grpc.aio.StreamStreamCall[Message | bytes, pb.UploadReply]
WholeCall = grpc.aio.UnaryUnaryMultiCallable[bytes, pb.UploadReply]


@dataclass(frozen=True, slots=True)
class DatagramWay:
    """A class that travels as datagrams."""

    packet_class: int
    sender: DatagramSender
    deadline_s: float | None
    """Seconds that its datagrams of one update may take."""


@dataclass(frozen=True, slots=True)
class StreamShare:
    """The packets of an update that one connection carries."""

    dscp: int
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LaneShare:
    """The packets of an update that share a queue of the link: streams first, then datagrams."""

    streams: tuple[StreamShare, ...]
    datagrams: tuple[DatagramWay, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """Classes that share one queue of the link, and by which ways they go."""

    rate_share: float
    streams: tuple[tuple[int, frozenset[int]], ...]
    datagrams: tuple[DatagramWay, ...]


class UploadWays:
    """Where each packet class of an update goes.

    Args:
        channels: connections to the server by DSCP; 0 is among them.
        lanes: the classes by the queue of the link that they share; every class is in one.

    """

    def __init__(self, channels: Mapping[int, grpc.aio.Channel], lanes: Sequence[Lane]) -> None:
        self._calls = {
            dscp: channel.stream_stream(
                _UPLOAD,
                request_serializer=serialize_part,
                response_deserializer=pb.UploadReply.FromString,
            )
            for dscp, channel in channels.items()
        }
        self._channels = dict(channels)
        self._whole_calls: dict[int, WholeCall] = {
            dscp: channel.unary_unary(
                _UPLOAD_WHOLE, response_deserializer=pb.UploadReply.FromString
            )
            for dscp, channel in channels.items()
        }
        self._lanes = tuple(lanes)

    @classmethod
    def one_stream(cls, channel: grpc.aio.Channel) -> "UploadWays":
        """Return the ways of a device that sends everything over one connection."""
        plain = lanes(ClassRoutes(), UplinkShares())
        return cls({0: channel}, [Lane(lane.rate_share, lane.streams, ()) for lane in plain])

    @property
    def least_share(self) -> float:
        """The smallest part of the uplink's rate that a lane has."""
        return min(lane.rate_share for lane in self._lanes)

    @property
    def marks(self) -> tuple[int, ...]:
        """The DSCPs of connections that packet classes have to themselves."""
        return tuple(dscp for dscp in self._calls if dscp)

    def connect(self) -> None:
        """Have connections made that are not there yet; never waits."""
        for channel in self._channels.values():
            channel.get_state(try_to_connect=True)

    def pace(self, rates_bps: Mapping[int, float]) -> None:
        """Keep datagrams of these classes to layer-2 rates from now on; 0 is the link's own."""
        for lane in self._lanes:
            for way in lane.datagrams:
                way.sender.fixed_rate_bps = rates_bps.get(way.packet_class) or None

    def call(self, dscp: int) -> Call:
        """Open an upload stream on the connection with this mark."""
        return self._calls[dscp](wait_for_ready=True)

    async def send_whole(self, dscp: int, header: pb.UploadHeader, packet: bytes) -> pb.UploadReply:
        """Send an update of one packet in one message on the connection with this mark."""
        message = frame_whole_upload(header, packet)
        return await self._whole_calls[dscp](message, wait_for_ready=True)

    def divide(self, packets: Sequence[bytes]) -> list[LaneShare]:
        """Return which packets of an update go where, in the order of their first packets."""
        by_class: dict[int, list[int]] = defaultdict(list)
        for sequence, packet in enumerate(packets):
            by_class[packet[CLASS_OFFSET]].append(sequence)
        shares = [
            LaneShare(
                streams=tuple(
                    StreamShare(dscp, sequences)
                    for dscp, classes in lane.streams
                    if (sequences := _merged(by_class, classes))
                ),
                datagrams=tuple(way for way in lane.datagrams if way.packet_class in by_class),
            )
            for lane in self._lanes
        ]
        return [share for share in shares if share.streams or share.datagrams]


def _merged(by_class: Mapping[int, Sequence[int]], classes: Collection[int]) -> tuple[int, ...]:
    return tuple(sorted(at for number in classes for at in by_class.get(number, ())))


@contextlib.asynccontextmanager
async def open_ways(
    routes: ClassRoutes,
    shares: UplinkShares,
    channel: grpc.aio.Channel,
    *,
    door: ServerDoor,
    datagram_port: int,
    mtu_bytes: int,
    radio: Radio,
    clock: Clock,
    stall_s: float,
) -> AsyncIterator[UploadWays]:
    """Open what the routes need besides ``channel``, which is the connection without a mark.

    Raises:
        RefusedError: if a class is to travel as datagrams and the server takes none.

    """
    if routes.datagrams() and not datagram_port:
        raise RefusedError(
            f"the class '{routes.datagrams()[0][0]}' is to travel as datagrams, "
            "but the server takes none: it needs datagram_listen"
        )
    async with contextlib.AsyncExitStack() as stack:
        channels = {0: channel}
        own = []
        for lane in lanes(routes, shares):
            for dscp, _ in lane.streams:
                if dscp not in channels:
                    channels[dscp] = await stack.enter_async_context(door.channel(dscp))
            ways = []
            for number, route in lane.datagrams:
                sender = DatagramSender(
                    (_address(door.address), datagram_port),
                    _terms(number, route, lane.rate_share, mtu_bytes),
                    radio=radio,
                    clock=clock,
                    stall_s=stall_s,
                )
                stack.callback(sender.close)
                ways.append(DatagramWay(number, sender, route.deadline_s))
            own.append(Lane(lane.rate_share, lane.streams, tuple(ways)))
        yield UploadWays(channels, own)


def _terms(number: int, route: DatagramRoute, lane_share: float, mtu_bytes: int) -> DatagramTerms:
    return DatagramTerms(
        packet_class=number,
        dscp=route.dscp or 0,
        rate_share=lane_share * route.rate_share,
        repeats=route.repeats,
        settle_s=route.settle_s,
        mtu_bytes=mtu_bytes,
    )


def _address(server: str) -> str:
    """Return the IPv4 address of the server's host."""
    host, _, _ = server.rpartition(":")
    found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_DGRAM)
    return str(found[0][4][0])
