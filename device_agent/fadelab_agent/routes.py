"""How the packets of each class travel: in a stream or as datagrams, and marked how."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.config import StrictModel
from fadelab_proto.datagram import datagram_payload_bytes

ClassName = Literal["update", "sign", "modulus"]
_NAMES: tuple[ClassName, ...] = ("update", "sign", "modulus")


class _Route(StrictModel):
    dscp: int | None = Field(
        None,
        ge=0,
        le=63,
        description="Differentiated-services code point (RFC 2474) of its packets; left out: that "
        "of the link's packet class of the same name, or 0.",
    )


class StreamRoute(_Route):
    """Through gRPC and TCP: nothing is lost; a connection for each DSCP."""

    kind: Literal["stream"] = "stream"


class DatagramRoute(_Route):
    """As UDP datagrams at the link's rate: what is lost on the way is lost, or repeated."""

    kind: Literal["datagrams"]
    repeats: int = Field(
        0, ge=0, le=1000, description="How often what the server misses is sent again."
    )
    deadline_s: float | None = Field(
        None,
        gt=0,
        description="Seconds from the first datagram of an update, after which none is sent, time "
        "out of contact included; no limit when left out.",
    )
    rate_share: float = Field(
        1.0, gt=0, le=1, description="Part of the rate of the link's packet class that they take."
    )
    settle_s: float = Field(0.1, ge=0, description="Seconds that the last datagram gets to arrive.")


MtuBytes = Annotated[
    int,
    Field(
        ge=576,
        le=65535,
        description="Largest IP packet on the way to the server: a datagram is never cut up.",
    ),
]
Route = Annotated[StreamRoute | DatagramRoute, Field(discriminator="kind")]


class ClassRoutes(StrictModel):
    """Each packet class's way; in a stream unless told otherwise."""

    update: Route = StreamRoute()
    sign: Route = StreamRoute()
    modulus: Route = StreamRoute()

    def items(self) -> tuple[tuple[ClassName, StreamRoute | DatagramRoute], ...]:
        """Return each class's name and route."""
        return tuple((name, getattr(self, name)) for name in _NAMES)

    def datagrams(self) -> tuple[tuple[ClassName, DatagramRoute], ...]:
        """Return the classes that travel as datagrams."""
        return tuple((name, way) for name, way in self.items() if isinstance(way, DatagramRoute))

    def payload_bytes(self, most: int, mtu_bytes: int) -> int:
        """Return the largest payload of a packet: ``most``, or less if one has to fit the MTU."""
        return min(most, datagram_payload_bytes(mtu_bytes)) if self.datagrams() else most


class MarkedShare(StrictModel):
    """A part of the uplink that packets with this mark have to themselves."""

    dscp: int = Field(ge=1, le=63)
    rate_share: float = Field(gt=0, lt=1, description="Part of the uplink's rate.")


class UplinkShares(StrictModel):
    """How the link divides its rate among packets; all of it is everybody's by default."""

    default: float = Field(1.0, gt=0, le=1, description="What packets without a known mark share.")
    marked: tuple[MarkedShare, ...] = ()


def class_number(name: ClassName) -> int:
    """Return a class as packets' headers have it."""
    return pb.PacketClass.Value(f"PACKET_CLASS_{name.upper()}")


@dataclass(frozen=True, slots=True)
class LaneRoutes:
    """Classes that share one queue of the link, and so take turns."""

    rate_share: float
    """Of the uplink's rate."""
    streams: tuple[tuple[int, frozenset[int]], ...]
    """DSCPs, and the numbers of the classes that travel in a stream under each."""
    datagrams: tuple[tuple[int, DatagramRoute], ...]
    """Numbers of the classes that travel as datagrams."""


def lanes(routes: ClassRoutes, shares: UplinkShares) -> tuple[LaneRoutes, ...]:
    """Return the classes grouped by the queues of the link that they share."""
    marked = {share.dscp: share.rate_share for share in shares.marked}
    groups: dict[int, list[tuple[int, StreamRoute | DatagramRoute]]] = {}
    for name, route in routes.items():
        lane = route.dscp if route.dscp in marked else 0
        groups.setdefault(lane or 0, []).append((class_number(name), route))
    return tuple(
        LaneRoutes(
            rate_share=marked.get(lane, shares.default),
            streams=_by_dscp(group),
            datagrams=tuple((n, route) for n, route in group if isinstance(route, DatagramRoute)),
        )
        for lane, group in groups.items()
    )


def _by_dscp(
    group: Sequence[tuple[int, StreamRoute | DatagramRoute]],
) -> tuple[tuple[int, frozenset[int]], ...]:
    streams = [(route.dscp or 0, n) for n, route in group if isinstance(route, StreamRoute)]
    return tuple((dscp, _of(dscp, streams)) for dscp in dict.fromkeys(dscp for dscp, _ in streams))


def _of(dscp: int, streams: Iterable[tuple[int, int]]) -> frozenset[int]:
    return frozenset(number for own, number in streams if own == dscp)
