"""Packets find their class at the shaper and at the port; each class has its rate and its loss."""

import socket
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from sandboxed import (
    FRAME_BYTES,
    UDP_PAYLOAD_BYTES,
    Flow,
    address_of,
    in_sandbox,
    make_backend,
    make_tick,
    udp_pair,
)

from fadelab_emulation.backends import topology
from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.backends.plan import ClassMark
from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss
from fadelab_emulation.netlink import traffic

pytestmark = pytest.mark.namespaces

EXPEDITED = 46
MARKS = (ClassMark(port=5000), ClassMark(dscp=EXPEDITED), ClassMark(port=6000))
_TCP, _UDP, _OTHER = 6, 17, 253
_NO_OPERATION = b"\x01" * 8


def lanes(rates_bps: list[float], losses: list[float] | None = None) -> tuple[Lane, ...]:
    return tuple(
        Lane(np.array([rate_bps]), PacketLoss.independent(np.array([loss])))
        for rate_bps, loss in zip(rates_bps, losses or [0.0] * len(rates_bps), strict=True)
    )


def tick(up: tuple[Lane, ...], down: tuple[Lane, ...]) -> LinkTick:
    return replace(make_tick(1, 1e6), up=up, down=down)


def packet(
    destination: str,
    *,
    ports: tuple[int, int] = (1, 2),
    protocol: int = _UDP,
    dscp: int = 0,
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    """Return an IPv4 packet; the kernel fills in length, checksum and source."""
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        dscp << 2,
        0,
        1,
        fragment,
        9,
        protocol,
        0,
        bytes(4),
        socket.inet_aton(destination),
    )
    return head + options + struct.pack("!HHHH", *ports, 8, 0) + bytes(12)


MORE_FRAGMENTS, SECOND_FRAGMENT = 0x2000, 0x0003
PACKETS = {
    "unmarked UDP": (0, {}),
    "port 5000 at the far end": (1, {"ports": (1, 5000)}),
    "port 5000 at the near end": (1, {"ports": (5000, 1)}),
    "port 5000 over TCP": (1, {"ports": (5000, 1), "protocol": _TCP}),
    "port 5000 behind IP options": (1, {"ports": (5000, 1), "options": _NO_OPERATION}),
    "what looks like port 5000 in another protocol": (0, {"ports": (5000, 1), "protocol": _OTHER}),
    "first fragment to port 5000": (0, {"ports": (1, 5000), "fragment": MORE_FRAGMENTS}),
    "later fragment that looks like port 5000": (
        0,
        {"ports": (1, 5000), "fragment": SECOND_FRAGMENT},
    ),
    "port 6000": (3, {"ports": (6000, 1)}),
    "from port 6000 to port 5000": (1, {"ports": (6000, 5000)}),
    "from port 5000 to port 6000": (1, {"ports": (5000, 6000)}),
    "expedited": (2, {"dscp": EXPEDITED}),
    "expedited fragment": (2, {"dscp": EXPEDITED, "fragment": SECOND_FRAGMENT}),
    "expedited to port 5000": (2, {"dscp": EXPEDITED, "ports": (1, 5000)}),
    "another code point": (0, {"dscp": EXPEDITED + 1}),
}


def sent_by_class(backend: KernelBackend) -> list[int]:
    asks = [
        traffic.read_class(topology.DEVICE_INDEX, topology.shaper_class(lane))
        for lane in range(1 + len(MARKS))
    ]
    answers = backend.namespaces[0].netlink.query(asks)
    return [traffic.parse_shaper(answer).sent_packets for answer in answers]


def classes_found() -> dict[str, list[int]]:
    backend = make_backend(1, 1e6, classes=MARKS)
    backend.apply(tick(lanes([1e9] * 4), lanes([1e9] * 4)))
    raw = backend.namespaces[0].run(
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    )
    found = {}
    for name, (_, fields) in PACKETS.items():
        before = sent_by_class(backend)
        raw.sendto(packet(backend.server_address, **fields), (backend.server_address, 0))  # type: ignore[arg-type]
        after = sent_by_class(backend)
        found[name] = [lane for lane, count in enumerate(after) if count > before[lane]]
    raw.close()
    return found


def test_packets_are_classified_by_code_point_and_by_either_port() -> None:
    assert in_sandbox(classes_found) == {name: [lane] for name, (lane, _) in PACKETS.items()}


RATES_BPS = {"up": (4e6, 1e6), "down": (2e6, 6e6)}


def rates_at_once() -> list[float]:
    """Return achieved over programmed rate: both uplink classes, then both downlink classes."""
    # Queues so long that they never run empty, however late the senders' threads are.
    backend = make_backend(1, 4e7, classes=(ClassMark(port=5000),))
    backend.apply(tick(lanes(list(RATES_BPS["up"])), lanes(list(RATES_BPS["down"]))))
    flows = [
        Flow(*udp_pair(backend, uplink=uplink, port=port))
        for uplink in (True, False)
        for port in (0, 5000)
    ]
    time.sleep(0.5)
    backend.sample()
    start_s = time.monotonic()
    time.sleep(2.0)
    end_s = time.monotonic()
    backend.sample()
    counters = backend.counters()
    for flow in flows:
        flow.stop()
    payload = UDP_PAYLOAD_BYTES / FRAME_BYTES
    shares = [
        flow.rate_between(start_s, end_s) / payload / rate_bps
        for flow, rate_bps in zip(flows, [*RATES_BPS["up"], *RATES_BPS["down"]], strict=True)
    ]
    accounts = [
        float(direction.achieved_bytes[0] / direction.programmed_bytes[0])
        for direction in (counters.up, counters.down)
    ]
    return shares + accounts


def test_two_classes_have_their_own_rates_at_once_in_both_directions() -> None:
    # A machine that is busy elsewhere serves a link late, never early.
    ratios = in_sandbox(rates_at_once)
    assert len(ratios) == 6
    assert all(0.8 <= ratio <= 1.02 for ratio in ratios), ratios


LOSSES = {True: (0.05, 0.3), False: (0.2, 0.0)}
_SENT = 5_000


def losses_at_once(uplink: bool) -> tuple[list[int], list[float]]:
    """Return how many of each class's packets were lost, and the account's three counts."""
    backend = make_backend(1, 1e9, classes=(ClassMark(port=5000),))
    backend.apply(
        tick(
            lanes([1e9, 1e9], list(LOSSES[True])),
            lanes([1e9, 1e9], list(LOSSES[False])),
        )
    )
    backend.sample()
    lost = []
    for port in (0, 5000):
        sender, receiver = udp_pair(backend, uplink=uplink, port=port)
        received = 0
        receiver.setblocking(False)
        for sent in range(1, _SENT + 1):
            sender.send(b"packet")
            if sent % 50 == 0:
                received += drain(receiver)
        time.sleep(0.05)
        lost.append(_SENT - received - drain(receiver))
        backend.sample()
    counters = backend.counters().up if uplink else backend.counters().down
    account = (counters.arrived_packets, counters.lost_packets, counters.expected_losses)
    return lost, [float(count[0]) for count in account]


def drain(receiver: socket.socket) -> int:
    received = 0
    while True:
        try:
            receiver.recv(100)
        except BlockingIOError:
            return received
        received += 1


@pytest.mark.parametrize("uplink", [True, False])
def test_each_class_has_its_own_losses_and_they_are_accounted_for(uplink: bool) -> None:
    lost, (arrived, account_lost, expected) = in_sandbox(losses_at_once, uplink)
    for count, probability in zip(lost, LOSSES[uplink], strict=True):
        deviation = np.sqrt(_SENT * probability * (1 - probability))
        assert abs(count - _SENT * probability) <= 4 * deviation
    assert (arrived, account_lost) == (2 * _SENT, sum(lost))
    assert expected == pytest.approx(_SENT * sum(LOSSES[uplink]), rel=0.02)


def addresses() -> str:
    backend = make_backend(2, 1e6)
    backend.apply(make_tick(2, 1e6))
    return address_of(backend, 1)


def test_a_devices_address_can_be_asked_of_its_namespace() -> None:
    assert in_sandbox(addresses) == topology.device_address(1)
