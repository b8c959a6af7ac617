"""Datagrams on loopback: what arrives is delivered in order, and every drop is counted."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.datagram import (
    FRAME_OVERHEAD_BYTES,
    datagram_bytes,
    datagram_payload_bytes,
)
from fadelab_proto.packet import HEADER_BYTES, Packet
from fadelab_server.datagrams import (
    ArrivedPacket,
    DatagramReceiver,
    FlowStatistics,
    ReceiverStatistics,
)

RUN = 0x5EED
SIGN, MODULUS = pb.PACKET_CLASS_SIGN, pb.PACKET_CLASS_MODULUS


def packet(sequence: int, *, device: int = 0, run: int = RUN, of: int = SIGN) -> bytes:
    return Packet(
        packet_class=of,
        codec=pb.CODEC_SIGN,
        task_index=0,
        device=device,
        run_id=run,
        update_id=1,
        base_version=0,
        first=8 * sequence,
        count=8,
        sequence=sequence,
        packets=0xFFFF,
        payload=bytes([sequence % 251]),
    ).encode()


class Ground:
    """A receiver in this loop, a socket to send to it with, and what it delivered."""

    def __init__(self, **options: Any) -> None:
        self.arrived: list[ArrivedPacket] = []
        self.batches = 0
        self.threads: set[int] = set()
        self._delivered = asyncio.Event()
        self.receiver = DatagramReceiver(
            ("127.0.0.1", 0),
            self._deliver,
            **({"run_id": RUN, "devices": range(4), "clock": SystemClock()} | options),
        )
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.connect(self.receiver.address)

    def _deliver(self, batch: Sequence[ArrivedPacket]) -> None:
        self.batches += 1
        self.threads.add(threading.get_ident())
        self.arrived += batch
        self._delivered.set()

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self._sender.send(datagram)

    @property
    def sequences(self) -> list[int]:
        return [arrived.packet.sequence for arrived in self.arrived]

    def let_it_read(self, count: int) -> None:
        """Keep the loop busy until the thread has counted so many packets of device 0's signs."""
        flows = self.receiver.statistics().flows
        while (0, SIGN) not in flows or flows[0, SIGN].packets < count:
            flows = self.receiver.statistics().flows

    async def delivered(self, count: int) -> None:
        while len(self.arrived) < count:
            self._delivered.clear()
            await self._delivered.wait()

    async def marker(self) -> None:
        """Return once everything sent so far was looked at: loopback keeps the order."""
        seen = len(self.arrived)
        self.send(packet(0xFFFE, device=3))
        while self.sequences[seen:].count(0xFFFE) == 0:
            self._delivered.clear()
            await self._delivered.wait()
        self.arrived = [one for one in self.arrived if one.packet.sequence != 0xFFFE]

    def close(self) -> ReceiverStatistics:
        self._sender.close()
        return self.receiver.stop()


@asynccontextmanager
async def receiving(**options: Any) -> AsyncIterator[Ground]:
    ground = Ground(**options)
    ground.receiver.start()
    try:
        yield ground
    finally:
        ground.close()


def go(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(limited())


def test_packets_are_delivered_in_order_in_the_loops_thread_with_their_bytes() -> None:
    async def scenario() -> None:
        async with receiving() as ground:
            before_s = SystemClock().now_s()
            sent = [packet(number) for number in range(1000)]
            for first in range(0, len(sent), 100):
                ground.send(*sent[first : first + 100])
                await ground.delivered(first + 100)
            after_s = SystemClock().now_s()
            assert [arrived.data for arrived in ground.arrived] == sent
            assert all(bytes(a.packet.payload) == a.data[HEADER_BYTES:] for a in ground.arrived)
            times = [arrived.arrived_s for arrived in ground.arrived]
            assert times == sorted(times)
            assert before_s <= times[0] <= times[-1] <= after_s
            assert ground.threads == {threading.get_ident()}
            assert ground.batches < 1000

    go(scenario)


def test_duplicates_and_disorder_are_passed_on() -> None:
    async def scenario() -> None:
        async with receiving() as ground:
            ground.send(*map(packet, (3, 1, 1, 2, 3, 0)))
            await ground.delivered(6)
            assert ground.sequences == [3, 1, 1, 2, 3, 0]

    go(scenario)


def test_damaged_and_foreign_packets_are_counted_and_harm_nobody() -> None:
    async def scenario() -> None:
        async with receiving(devices={0, 3}) as ground:
            whole = packet(1)
            flipped = [bytearray(whole) for _ in range(len(whole))]
            for at, damaged in enumerate(flipped):
                damaged[at] ^= 0x10
            ground.send(b"", b"x", whole[:-1], whole + b"x", *map(bytes, flipped))
            ground.send(packet(2, run=RUN + 1), packet(2, device=1), packet(2, device=0xFFFF))
            ground.send(packet(4))
            await ground.delivered(1)
            assert ground.sequences == [4]
            statistics = ground.receiver.statistics()
            assert statistics.damaged_packets == 4 + len(whole)
            assert statistics.unknown_packets == 3
            assert sum(flow.packets for flow in statistics.flows.values()) == 1

    go(scenario)


def test_a_datagram_beyond_the_limit_is_damaged_and_one_at_the_limit_is_not() -> None:
    async def scenario() -> None:
        size = len(packet(0))
        async with receiving(max_datagram_bytes=size) as ground:
            ground.send(packet(1) + b"x", packet(2))
            await ground.delivered(1)
            assert ground.sequences == [2]
            assert ground.receiver.statistics().damaged_packets == 1

    go(scenario)


def test_devices_may_become_known_while_it_runs() -> None:
    async def scenario() -> None:
        known = {3}
        async with receiving(devices=known) as ground:
            ground.send(packet(1, device=2))
            await ground.marker()
            assert ground.sequences == []
            known.add(2)
            ground.send(packet(2, device=2))
            await ground.delivered(1)
            assert ground.sequences == [2]

    go(scenario)


def test_counts_are_kept_by_device_and_class() -> None:
    async def scenario() -> None:
        ground = Ground()
        ground.receiver.start()
        size = len(packet(0))
        ground.send(packet(0), packet(0), packet(1, of=MODULUS), packet(0, device=2))
        await ground.delivered(4)
        assert ground.close().flows == {
            (0, SIGN): FlowStatistics(2, 2 * size, 0),
            (0, MODULUS): FlowStatistics(1, size, 0),
            (2, SIGN): FlowStatistics(1, size, 0),
        }

    go(scenario)


def test_what_the_loop_has_no_time_for_is_dropped_and_counted() -> None:
    async def scenario() -> None:
        ground = Ground(queue_packets=10)
        ground.receiver.start()
        ground.send(*map(packet, range(40)))
        # The loop is not given a turn: all that the thread can do is to fill the queue.
        ground.let_it_read(40)
        assert ground.receiver.statistics().flows[0, SIGN].overrun_packets == 30
        assert ground.arrived == []
        await ground.delivered(10)
        assert ground.sequences == list(range(10))
        # Once it has caught up there is room again.
        ground.send(packet(50))
        await ground.delivered(11)
        flow = ground.close().flows[0, SIGN]
        assert (flow.packets, flow.overrun_packets) == (41, 30)
        assert ground.sequences[-1] == 50

    go(scenario)


def test_what_the_kernel_drops_at_the_socket_is_told_from_losses_elsewhere() -> None:
    async def scenario() -> None:
        ground = Ground(queue_packets=1 << 20)
        assert ground.receiver.statistics().socket_drops == 0
        ground.receiver._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        # Nobody reads before it is started.
        ground.send(*map(packet, range(5000)))
        drops = ground.receiver.statistics().socket_drops
        assert 0 < drops < 5000
        ground.receiver.start()
        await ground.delivered(5000 - drops)
        statistics = ground.close()
        assert statistics.socket_drops == drops
        assert statistics.flows[0, SIGN].packets == 5000 - drops
        assert statistics.receive_buffer_bytes == 1 << 17

    go(scenario)


def test_the_socket_gets_a_larger_buffer_than_by_default() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        async with receiving() as ground:
            assert ground.receiver.statistics().receive_buffer_bytes > default

    go(scenario)


def test_stopping_delivers_what_was_received_ends_the_thread_and_frees_the_address() -> None:
    async def scenario() -> None:
        threads = threading.active_count()
        ground = Ground()
        ground.receiver.start()
        assert threading.active_count() == threads + 1
        ground.send(*map(packet, range(20)))
        ground.let_it_read(20)
        address = ground.receiver.address
        ground.close()
        assert ground.sequences == list(range(20))
        assert threading.active_count() == threads
        await asyncio.sleep(0)
        assert len(ground.arrived) == 20
        DatagramReceiver(
            address, lambda _: None, run_id=RUN, devices=(), clock=SystemClock()
        ).stop()

    go(scenario)


def test_it_stops_amid_a_flood() -> None:
    async def scenario() -> None:
        ground = Ground()
        ground.receiver.start()
        address, over = ground.receiver.address, threading.Event()

        def flood() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                while not over.is_set():
                    sender.sendto(packet(1), address)

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            await ground.delivered(500)
            statistics = ground.close()
        finally:
            over.set()
            flooding.join()
        flow = statistics.flows[0, SIGN]
        assert len(ground.arrived) == flow.packets - flow.overrun_packets

    go(scenario)


def test_an_address_that_is_taken_is_refused() -> None:
    async def scenario() -> None:
        async with receiving() as ground:
            with pytest.raises(OSError, match="in use"):
                DatagramReceiver(
                    ground.receiver.address,
                    lambda _: None,
                    run_id=RUN,
                    devices=(),
                    clock=SystemClock(),
                )

    go(scenario)


def test_payloads_that_fit_into_one_frame() -> None:
    assert datagram_payload_bytes() == 1432
    assert datagram_payload_bytes() + HEADER_BYTES + FRAME_OVERHEAD_BYTES == 1514
    assert datagram_bytes(9000) == 8972
    with pytest.raises(ValueError, match="an MTU of 68 bytes is not from 576 to 65535"):
        datagram_bytes(68)
