"""A star of shaped links around the server, made of veth pairs.

    server's namespace (hub)                 device i's namespace
    lo   10.77.0.1                           eth0  10.77.a.b
    fl<i> ---------------- veth ------------ eth0
      egress: downlink shaper                  egress: uplink shaper
      ingress: uplink impairments              ingress: downlink impairments

Each shaper is  1: tbf (contact gate)  >  2: htb  >  per packet class: 2:k (rate) > bfifo (queue).
The gate stands in front so that one look at it shows the whole direction: bytes sent, backlog.
There is no bridge (no port limit, no flooding), no forwarding between devices, and neighbours are
fixed, so no ARP frame ever meets a shaper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fadelab_emulation.backends.classes import class_label, classify
from fadelab_emulation.backends.impairment.base import Direction, Port
from fadelab_emulation.backends.plan import FRAME_BYTES, ClassMark, LinkPlan
from fadelab_emulation.namespaces import NetworkNamespace, Setting
from fadelab_emulation.netlink import filters, links, traffic
from fadelab_emulation.netlink.classic_bpf import Operation, Step
from fadelab_emulation.netlink.message import NetlinkSocket, Request

DEVICE_INDEX = 2
"""Interface index of eth0 inside every device's namespace."""
_MAX_DEVICES = 250 * 254

GATE = 0x10000
SHAPER = 0x20000
_QUEUE = 0x30000

RATE_FLOOR_BPS = 64_000
"""Below it a frame takes so long that a rise in rate shows only after a fifth of a second."""
_OPEN_RATE_BPS = 10_000_000_000
_OPEN_BURST_BYTES = 100_000
_RETRY_S = 1.0
"""How often a packet waiting at a closed gate would find it open if the nudge were lost. Retrying
every few milliseconds instead cost a fifth of the machine with a hundred devices."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the links of a star are found."""

    network: str = "10.77"
    """The first two numbers of all addresses."""
    first_hub_index: int = 16
    """Interface index of device 0's link in the hub."""

    @property
    def server_address(self) -> str:
        """The server's IPv4 address."""
        return f"{self.network}.0.1"

    def hub_index(self, device: int) -> int:
        """Return the interface index of a device's link in the hub."""
        return self.first_hub_index + device

    def device_address(self, device: int) -> str:
        """Return a device's IPv4 address."""
        return f"{self.network}.{1 + device // 250}.{1 + device % 250}"


_PRIVATE = Layout()
SERVER_ADDRESS = _PRIVATE.server_address
hub_index = _PRIVATE.hub_index
device_address = _PRIVATE.device_address


def shaper_class(lane: int) -> int:
    """Return the handle of a packet class at every shaper; lane 0 is the default class."""
    return SHAPER | 1 + lane


def burst_bytes(rate_bps: int) -> int:
    """Return the shaper's burst: a full frame or 0.5 ms, whichever is more.

    It makes up for a kernel that comes late. After a pause, it and one frame more leave at once,
    so a larger one lets short messages arrive faster than the rate allows: with two frames or 2 ms
    one of 51 frames was 6 % too fast at low rates, 9 % at 20 Mbit/s. With this one it is 4 %, and
    TCP gets the full rate from 0.5 to 100 Mbit/s, on busy processors too.
    """
    return max(FRAME_BYTES, round(rate_bps / 8 * 0.0005))


def gate_open(index: int) -> bytes:
    """Return the state of a gate that is no obstacle."""
    return traffic.open_tbf(index, GATE, rate_bps=_OPEN_RATE_BPS, burst_bytes=_OPEN_BURST_BYTES)


def gate_closed(index: int) -> bytes:
    """Return the state of a gate that nothing passes."""
    return traffic.closed_tbf(index, GATE, retry_s=_RETRY_S)


@dataclass(frozen=True, slots=True)
class DeviceEnd:
    """The interface at a device's end of a link."""

    namespace: NetworkNamespace
    index: int = DEVICE_INDEX
    name: str = "eth0"


class Crossing(NamedTuple):
    """Running counts of what went over a link; bytes are layer-2 bytes."""

    up_packets: int
    down_packets: int
    up_bytes: int
    down_bytes: int


class Star:
    """The links' two kinds of ends: one hub, in the calling thread's namespace, many devices."""

    settings: tuple[Setting, ...] = ()
    """Kernel settings obtained on the server's side."""

    def __init__(
        self, hub: NetlinkSocket, ends: Sequence[DeviceEnd], layout: Layout = _PRIVATE
    ) -> None:
        self.hub = hub
        self.ends = list(ends)
        self.layout = layout

    @property
    def namespaces(self) -> list[NetworkNamespace]:
        """Where each device's processes live."""
        return [end.namespace for end in self.ends]

    @property
    def server_address(self) -> str:
        """The address that devices reach the server at."""
        return self.layout.server_address

    def make(self, plan: LinkPlan) -> None:
        """Make every device's link, its gates closed, at the lowest rate. Raises NetlinkError."""
        if plan.devices > _MAX_DEVICES:
            raise ValueError(f"at most {_MAX_DEVICES} devices have an address, not {plan.devices}")
        here = [links.add_address(links.LOOPBACK_INDEX, self.server_address)]
        for device in range(plan.devices):
            here += self.hub_side(device, plan)
        self.hub.change(here)
        for device, end in enumerate(self.ends):
            up = links.set_up(links.LOOPBACK_INDEX)
            netlink = end.namespace.netlink
            netlink.change([up, *self.device_shaper(device, plan), *self.device_side(device)])

    def sender(self, device: int, direction: Direction) -> tuple[NetlinkSocket, int]:
        """Return a socket beside the interface at which a direction is shaped, and its index."""
        if direction is Direction.UP:
            end = self.ends[device]
            return end.namespace.netlink, end.index
        return self.hub, self.layout.hub_index(device)

    def port(self, device: int, direction: Direction) -> Port:
        """Return the end at which packets of a direction arrive."""
        netlink, index = self.sender(device, Direction(1 - direction))
        return Port(device, direction, netlink, index)

    def crossings(self, devices: Sequence[int]) -> list[Crossing]:
        """Read the counters of the hub's ends.

        What arrives there is uplink; what leaves there is downlink and, on a veth pair, the same
        as what arrives at the device.
        """
        asked = [links.read_counters(self.layout.hub_index(device)) for device in devices]
        return [Crossing(*links.parse_counters(answer)[1:]) for answer in self.hub.query(asked)]

    def device_routes(self, device: int) -> list[Request]:
        """Return what lets a device reach the server, once its interface is up."""
        return device_routes(device, self.ends[device].index, self.layout)

    def close(self) -> None:
        """Release every descriptor; the links vanish with the last process in each namespace."""
        self.hub.close()
        for namespace in self.namespaces:
            namespace.close()

    def hub_side(self, device: int, plan: LinkPlan) -> list[Request]:
        """Return what makes a link and the hub's end of it."""
        end, layout = self.ends[device], self.layout
        index, address = layout.hub_index(device), layout.device_address(device)
        here = links.VethEnd(f"fl{device}", index, _mac(device, 0))
        there = links.VethEnd(end.name, end.index, _mac(device, 1))
        return [
            links.create_veth(here, there, end.namespace.descriptor),
            links.add_neighbour(index, address, there.mac),
            links.add_route(index, address, layout.server_address),
            *_end(index, plan.queues[device].down_bytes, plan.classes),
        ]

    def device_shaper(self, device: int, plan: LinkPlan) -> list[Request]:
        """Return what shapes the device's end, to be there before that can send anything."""
        return _end(self.ends[device].index, plan.queues[device].up_bytes, plan.classes)

    def device_side(self, device: int) -> list[Request]:
        """Return what makes use of a link that :meth:`hub_side` made."""
        index = self.ends[device].index
        return [
            links.set_up(index),
            links.add_address(index, self.layout.device_address(device)),
            *self.device_routes(device),
        ]


def open_gates(star: Star, device: int) -> None:
    """Open both gates of a link, for window modes that close it by other means."""
    for direction in Direction:
        netlink, index = star.sender(device, direction)
        netlink.change([traffic.change_tbf(gate_open(index))])


def device_routes(
    device: int, index: int = DEVICE_INDEX, layout: Layout = _PRIVATE
) -> list[Request]:
    """Return what lets a device reach the server, once its interface is up."""
    server = layout.server_address
    return [
        links.add_neighbour(index, server, _mac(device, 0)),
        links.add_route(index, server, layout.device_address(device)),
    ]


def _end(index: int, queue_bytes: int, marks: Sequence[ClassMark]) -> list[Request]:
    """Return what an interface needs to shape what it sends and to impair what it receives."""
    return [*shaper(index, queue_bytes, marks), filters.add_ingress_hook(index)]


def shaper(index: int, queue_bytes: int, marks: Sequence[ClassMark]) -> list[Request]:
    """Return what an interface needs to shape what it sends; its gate is closed."""
    requests = [
        traffic.add_tbf(gate_closed(index)),
        traffic.add_htb(index, SHAPER, GATE | 1, shaper_class(0) & 0xFFFF),
    ]
    burst = burst_bytes(RATE_FLOOR_BPS)
    for lane in range(1 + len(marks)):
        requests += [
            traffic.add_htb_class(index, shaper_class(lane), RATE_FLOOR_BPS, burst),
            _add_queue(index, queue_bytes, lane),
        ]
    if marks:
        requests.append(filters.add_class_filter(index, SHAPER, _class_program(marks)))
    return requests


def empty_queues(index: int, queue_bytes: int, lanes: int) -> list[Request]:
    """Return what replaces the queues of a shaper by empty ones."""
    return [
        request
        for lane in range(lanes)
        for request in (
            traffic.remove_queue(index, _queue(lane), shaper_class(lane)),
            _add_queue(index, queue_bytes, lane),
        )
    ]


def _add_queue(index: int, queue_bytes: int, lane: int) -> Request:
    return traffic.add_byte_queue(index, _queue(lane), shaper_class(lane), queue_bytes)


def _queue(lane: int) -> int:
    return _QUEUE + (lane << 16)


def _class_program(marks: Sequence[ClassMark]) -> list[Step | str]:
    program = classify(marks)
    for lane in range(1 + len(marks)):
        program += [class_label(lane), Step(Operation.RETURN, shaper_class(lane))]
    return program


def _mac(device: int, end: int) -> bytes:
    """Return a locally administered address, the same in every run."""
    return bytes((0x02, 0xFA, 0xDE, end)) + device.to_bytes(2, "big")
