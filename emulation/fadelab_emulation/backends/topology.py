"""A star of shaped links around the server, made of veth pairs.

    server's namespace (hub)                 device i's namespace
    lo   10.77.0.1                           eth0  10.77.a.b
    fl<i> ---------------- veth ------------ eth0
      egress: downlink shaper                  egress: uplink shaper
      ingress: uplink loss                     ingress: downlink loss

Each shaper is  1: tbf (contact gate)  >  2: htb, class 2:1 (rate)  >  3: bfifo (queue).
The gate stands in front so that one look at it shows the whole direction: bytes sent, backlog.
There is no bridge (no port limit, no flooding), no forwarding between devices, and neighbours are
fixed, so no ARP frame ever meets a shaper.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fadelab_emulation.namespaces import NetworkNamespace
from fadelab_emulation.netlink import links, traffic
from fadelab_emulation.netlink.message import NetlinkSocket, Request

SERVER_ADDRESS = "10.77.0.1"
DEVICE_INDEX = 2
"""Interface index of eth0 inside every device's namespace."""
_HUB_INDEX_BASE = 16
_MAX_DEVICES = 250 * 254

GATE = 0x10000
SHAPER = 0x20000
SHAPER_CLASS = 0x20001
_QUEUE = 0x30000

RATE_FLOOR_BPS = 64_000
"""Below it a frame takes so long that a rise in rate shows only after a fifth of a second."""
_OPEN_RATE_BPS = 10_000_000_000
_OPEN_BURST_BYTES = 100_000
_RETRY_S = 1.0
"""How often a packet waiting at a closed gate would find it open if the nudge were lost. Retrying
every few milliseconds instead cost a fifth of the machine with a hundred devices."""


@dataclass(frozen=True, slots=True)
class QueueSizes:
    """Bytes each direction's queue of one device holds."""

    up_bytes: int
    down_bytes: int

    @classmethod
    def for_rates(cls, up_bps: float, down_bps: float) -> "QueueSizes":
        """Return queues of 60 ms at these rates, at least 8 full frames.

        Shorter ones cost goodput, longer ones only delay.
        """
        sizes = (
            round(max(8 * traffic.MTU_FRAME_BYTES, bps / 8 * 0.06)) for bps in (up_bps, down_bps)
        )
        return cls(*sizes)


def hub_index(device: int) -> int:
    """Return the interface index of a device's link in the hub."""
    return _HUB_INDEX_BASE + device


def device_address(device: int) -> str:
    """Return a device's IPv4 address."""
    return f"10.77.{1 + device // 250}.{1 + device % 250}"


def burst_bytes(rate_bps: int) -> int:
    """Return the shaper's burst: two full frames or 2 ms, whichever is more.

    A larger one lets a short message arrive faster than the rate allows: at 50 Mbit/s, 4 ms made
    a 2 MB update 1 % too fast.
    """
    return max(2 * traffic.MTU_FRAME_BYTES, round(rate_bps / 8 * 0.002))


def gate_open(index: int) -> bytes:
    """Return the state of a gate that is no obstacle."""
    return traffic.open_tbf(index, GATE, rate_bps=_OPEN_RATE_BPS, burst_bytes=_OPEN_BURST_BYTES)


def gate_closed(index: int) -> bytes:
    """Return the state of a gate that nothing passes."""
    return traffic.closed_tbf(index, GATE, retry_s=_RETRY_S)


def create_links(
    hub: NetlinkSocket,
    namespaces: Sequence[NetworkNamespace],
    queues: Sequence[QueueSizes],
) -> None:
    """Make every device's link, closed, at the lowest rate. Raises NetlinkError."""
    if len(namespaces) > _MAX_DEVICES:
        raise ValueError(f"at most {_MAX_DEVICES} devices have an address, not {len(namespaces)}")
    server = [links.add_address(links.LOOPBACK_INDEX, SERVER_ADDRESS)]
    here: list[Request] = []
    for device, (namespace, queue) in enumerate(zip(namespaces, queues, strict=True)):
        here += _hub_side(device, namespace, queue.down_bytes)
    hub.change(server + here)
    for device, (namespace, queue) in enumerate(zip(namespaces, queues, strict=True)):
        namespace.netlink.change(_device_side(device, queue.up_bytes))


def _hub_side(device: int, namespace: NetworkNamespace, queue_bytes: int) -> list[Request]:
    index, address = hub_index(device), device_address(device)
    here = links.VethEnd(f"fl{device}", index, _mac(device, 0))
    there = links.VethEnd("eth0", DEVICE_INDEX, _mac(device, 1))
    return [
        links.create_veth(here, there, namespace.descriptor),
        links.add_neighbour(index, address, there.mac),
        links.add_route(index, address, SERVER_ADDRESS),
        *_shaper(index, queue_bytes),
    ]


def _device_side(device: int, queue_bytes: int) -> list[Request]:
    address = device_address(device)
    return [
        links.set_up(links.LOOPBACK_INDEX),
        links.set_up(DEVICE_INDEX),
        links.add_address(DEVICE_INDEX, address),
        links.add_neighbour(DEVICE_INDEX, SERVER_ADDRESS, _mac(device, 0)),
        links.add_route(DEVICE_INDEX, SERVER_ADDRESS, address),
        *_shaper(DEVICE_INDEX, queue_bytes),
    ]


def _shaper(index: int, queue_bytes: int) -> list[Request]:
    return [
        traffic.add_tbf(gate_closed(index)),
        traffic.add_htb(index, SHAPER, GATE | 1, SHAPER_CLASS & 0xFFFF),
        traffic.add_htb_class(index, SHAPER_CLASS, RATE_FLOOR_BPS, burst_bytes(RATE_FLOOR_BPS)),
        traffic.add_byte_queue(index, _QUEUE, SHAPER_CLASS, queue_bytes),
    ]


def _mac(device: int, end: int) -> bytes:
    """Return a locally administered address, the same in every run."""
    return bytes((0x02, 0xFA, 0xDE, end)) + device.to_bytes(2, "big")
