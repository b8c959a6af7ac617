"""Where the bytes of a run went: from the codecs, the streams and the kernel's counters.

Three sources that know nothing of each other: events say which packets were taken, the kernel says
what its TCP connections and UDP sockets have sent, and the interfaces say what crossed the links.
What the first two do not explain of the third is the residual.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fadelab.results.record import Event, RunRecord, number
from fadelab.results.schema import (
    ByteLedger,
    DevicePackets,
    DirectionBytes,
    PacketBytes,
    RoundPackets,
)
from fadelab_proto.packet import HEADER_BYTES
from fadelab_proto.tcp_info import NOTHING_SENT

Direction = Literal["up", "down"]

ETHERNET_BYTES = 14
FULL_FRAME_BYTES = 1514
DATAGRAM_HEADER_BYTES = 20 + 8
"""Headers of IPv4 (RFC 791) and UDP (RFC 768)."""

_TAKEN = ("upload_complete", "upload_partial", "upload_abandoned", "upload_refused")
_FETCHED = ("model_received", "model_partial")
_OF_CONNECTIONS = tuple(NOTHING_SENT.event_fields())
_PARTS = (
    "payload",
    "packet_headers",
    "framing",
    "undelivered",
    "retransmitted",
    "ip_headers",
    "ethernet",
    "probes",
)


@dataclass(frozen=True, slots=True)
class Shipment:
    """Packets of one class that one transfer has brought, each counted once."""

    device: int
    direction: Direction
    task: str
    version: int
    """The one that an update was trained from, or that was fetched."""
    packet_class: str
    packets: int
    payload_bytes: int

    @property
    def header_bytes(self) -> int:
        """Bytes of the packets' own headers."""
        return HEADER_BYTES * self.packets


@dataclass(frozen=True, slots=True)
class Datagrams:
    """What became of packets that travelled as datagrams; bytes are of packets with headers."""

    sent_bytes: int = 0
    """Those sent again included."""
    taken_bytes: int = 0
    """Those that the server took, each once."""


class Ledger:
    """The bytes of a run by device, task, version and packet class."""

    def __init__(self, record: RunRecord, devices: int) -> None:
        self._shipments = shipments(record)
        self._of_device: list[list[Shipment]] = [[] for _ in range(devices)]
        for shipment in self._shipments:
            self._of_device[shipment.device].append(shipment)
        self._datagrams = _datagrams(record, devices)
        self._aborted = _aborted(record, devices)

    def of_device(self, device: int, account: Event) -> ByteLedger:
        """Return a device's bytes; ``account`` is its ``link_account`` event, or empty."""
        own = self._of_device[device]
        whole = _sum_of_fields(account, self._aborted[device])
        up, down = (
            direction_bytes(
                whole,
                direction,
                [shipment for shipment in own if shipment.direction == direction],
                self._datagrams[device] if direction == "up" else Datagrams(),
            )
            for direction in _DIRECTIONS
        )
        seen = "connections" in account and not number(account, "connections_missed")
        connections = int(number(account, "connections")) if seen else None
        return ByteLedger(up=up, down=down, connections=connections)

    def device_packets(self, device: int) -> list[DevicePackets]:
        """Return a device's packets by direction, task and class."""
        groups: dict[tuple[Direction, str, str], list[Shipment]] = defaultdict(list)
        for shipment in self._of_device[device]:
            groups[shipment.direction, shipment.task, shipment.packet_class].append(shipment)
        return [
            DevicePackets(direction=direction, task=task, packet_class=name, **_sums(group))
            for (direction, task, name), group in sorted(groups.items())
        ]

    def task_packets(self, task: str) -> list[PacketBytes]:
        """Return a task's packets by direction and class, over all devices and versions."""
        groups: dict[tuple[Direction, str], list[Shipment]] = defaultdict(list)
        for shipment in self._shipments:
            if shipment.task == task:
                groups[shipment.direction, shipment.packet_class].append(shipment)
        return [
            PacketBytes(direction=direction, packet_class=name, **_sums(group))
            for (direction, name), group in sorted(groups.items())
        ]

    def rounds(self, task: str) -> list[RoundPackets]:
        """Return a task's packets by version, direction and class, over all devices."""
        groups: dict[tuple[int, Direction, str], list[Shipment]] = defaultdict(list)
        for shipment in self._shipments:
            if shipment.task == task:
                key = shipment.version, shipment.direction, shipment.packet_class
                groups[key].append(shipment)
        return [
            RoundPackets(
                version=version,
                direction=direction,
                packet_class=name,
                devices=len({shipment.device for shipment in group}),
                **_sums(group),
            )
            for (version, direction, name), group in sorted(groups.items())
        ]


_DIRECTIONS: tuple[Direction, Direction] = ("up", "down")


def shipments(record: RunRecord) -> list[Shipment]:
    """Return what every upload and download has brought, as far as it came."""
    found: list[Shipment] = []
    for name in _TAKEN:
        for event in record.of("server", name):
            found += _brought(event, "up", int(number(event, "device")), "base_version", "update")
    for name in _FETCHED:
        for event in record.of("agent", name):
            found += _brought(event, "down", int(str(event["id"])), "version", "model")
    return found


def _brought(
    event: Event, direction: Direction, device: int, version: str, only_class: str
) -> list[Shipment]:
    """Return one shipment for each packet class of a transfer."""
    classes, packets, payloads = (
        event.get(key) for key in ("classes", "class_packets", "class_payload_bytes")
    )
    if isinstance(classes, list) and isinstance(packets, list) and isinstance(payloads, list):
        rows = list(
            zip(map(str, classes), map(_whole, packets), map(_whole, payloads), strict=True)
        )
    else:
        rows = [(only_class, int(number(event, "packets")), int(number(event, "payload_bytes")))]
    return [
        Shipment(
            device,
            direction,
            str(event.get("task", "")),
            int(number(event, version)),
            name,
            count,
            size,
        )
        for name, count, size in rows
        if count or size
    ]


def _datagrams(record: RunRecord, devices: int) -> list[Datagrams]:
    sent, taken = [0] * devices, [0] * devices
    for event in record.of("agent", "upload_ended"):
        sent[int(str(event["id"]))] += int(number(event, "datagram_bytes"))
    for name in _TAKEN:
        for event in record.of("server", name):
            taken[int(number(event, "device"))] += int(
                number(event, "datagram_payload_bytes")
                + HEADER_BYTES * number(event, "datagram_packets")
            )
    return [Datagrams(*both) for both in zip(sent, taken, strict=True)]


def _aborted(record: RunRecord, devices: int) -> list[dict[str, int]]:
    """Return what connections had sent that devices broke off: the kernel forgets it with them."""
    sums: list[dict[str, int]] = [defaultdict(int) for _ in range(devices)]
    for event in record.of("agent", "connections_aborted"):
        for name in _OF_CONNECTIONS:
            sums[int(str(event["id"]))][f"up_{name}"] += int(number(event, name))
    return sums


def _sum_of_fields(account: Event, more: Mapping[str, int]) -> Event:
    """Return an account with more in some of the figures that it has."""
    return account | {
        name: number(account, name) + value for name, value in more.items() if name in account
    }


def direction_bytes(
    account: Event, direction: Direction, brought: Sequence[Shipment], datagrams: Datagrams
) -> DirectionBytes:
    """Return where the bytes of one direction of one link went.

    Args:
        account: the link's ``link_account`` event. Without the fields of TCP connections, all that
            they would explain is residual.
        direction: ``up`` or ``down``.
        brought: what came through this direction.
        datagrams: what of it was not carried by TCP.

    """

    def counted(name: str) -> int:
        return int(number(account, f"{direction}_{name}"))

    payload = sum(shipment.payload_bytes for shipment in brought)
    headers = sum(shipment.header_bytes for shipment in brought)
    again = counted("tcp_retransmitted_bytes")
    in_stream = payload + headers - datagrams.taken_bytes
    seen = f"{direction}_tcp_bytes" in account
    frames = counted("tcp_segments") + counted("datagrams")
    return _balanced(
        wire=counted("wire_bytes"),
        device_end=counted("device_end_bytes"),
        waiting=counted("waiting_bytes"),
        overflowed=FULL_FRAME_BYTES * counted("overflowed_packets"),
        payload=payload,
        packet_headers=headers,
        framing=counted("tcp_bytes") - again - in_stream if seen else 0,
        undelivered=datagrams.sent_bytes - datagrams.taken_bytes,
        retransmitted=again,
        ip_headers=counted("tcp_header_bytes") + DATAGRAM_HEADER_BYTES * counted("datagrams"),
        ethernet=ETHERNET_BYTES * frames,
        probes=counted("probe_bytes"),
    )


def add_bytes(directions: Iterable[DirectionBytes]) -> DirectionBytes:
    """Return the sum of several links' bytes."""
    found = list(directions)
    names = (*_PARTS, "waiting", "overflowed", "wire", "device_end")
    return _balanced(**{name: sum(getattr(each, name) for each in found) for name in names})


def add_ledgers(ledgers: Iterable[ByteLedger]) -> ByteLedger:
    """Return the sum of several devices' bytes."""
    found = list(ledgers)
    counts = [ledger.connections for ledger in found if ledger.connections is not None]
    return ByteLedger(
        up=add_bytes(ledger.up for ledger in found),
        down=add_bytes(ledger.down for ledger in found),
        connections=sum(counts) if len(counts) == len(found) else None,
    )


def _balanced(
    *, wire: int, device_end: int, waiting: int, overflowed: int, **parts: int
) -> DirectionBytes:
    residual = wire - (sum(parts.values()) - waiting - overflowed)
    return DirectionBytes(
        **parts,
        waiting=waiting,
        overflowed=overflowed,
        residual=residual,
        residual_percent=round(100 * residual / wire, 4) if wire else None,
        wire=wire,
        device_end=device_end,
    )


def _whole(value: object) -> int:
    return int(str(value))


def _sums(group: Sequence[Shipment]) -> dict[str, int]:
    return {
        "packets": sum(shipment.packets for shipment in group),
        "payload": sum(shipment.payload_bytes for shipment in group),
        "headers": sum(shipment.header_bytes for shipment in group),
    }
