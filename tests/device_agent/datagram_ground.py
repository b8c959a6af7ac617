"""A datagram sender on a clock that jumps, and the socket that it sends to."""

import asyncio
import contextlib
import heapq
import itertools
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tests.device_agent.agent_harness import HandRadio, go

from fadelab_agent.datagram_uplink import DatagramSender, DatagramTally, DatagramTerms
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.datagram import FRAME_OVERHEAD_BYTES
from fadelab_proto.packet import HEADER_BYTES, Packet, parse_packet

SIGN, MODULUS, UPDATE = pb.PACKET_CLASS_SIGN, pb.PACKET_CLASS_MODULUS, pb.PACKET_CLASS_UPDATE
PAYLOAD_BYTES = 958
FRAME_BITS = 8 * (PAYLOAD_BYTES + HEADER_BYTES + FRAME_OVERHEAD_BYTES)
TURNS = 20


def make_packets(
    count: int, *, of: Callable[[int], int] = lambda _: SIGN, payload_bytes: int = PAYLOAD_BYTES
) -> list[bytes]:
    return [
        Packet(
            packet_class=of(sequence),
            codec=pb.CODEC_SIGN,
            task_index=0,
            device=0,
            run_id=7,
            update_id=1,
            base_version=0,
            first=sequence,
            count=1,
            sequence=sequence,
            packets=count,
            payload=bytes(payload_bytes),
        ).encode()
        for sequence in range(count)
    ]


class JumpingClock:
    """Time stands still while anybody works and jumps to whoever waits for the nearest moment."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.waits = 0
        self.on_wait: Callable[[], None] = lambda: None
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Event]] = []
        self._driver: asyncio.Task[None] | None = None

    def now_s(self) -> float:
        return self.seconds

    async def sleep_until(self, when_s: float) -> None:
        self.waits += 1
        self.on_wait()
        due = asyncio.Event()
        heapq.heappush(self._waiting, (when_s, next(self._order), due))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        await due.wait()

    async def _drive(self) -> None:
        while self._waiting:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            when_s, _, due = heapq.heappop(self._waiting)
            self.seconds = max(self.seconds, when_s)
            due.set()


class Ground:
    """A sender, the socket that it sends to, and what came when."""

    def __init__(
        self, radio: HandRadio, clock: Clock | None = None, *, stall_s: float = 5.0, **terms: Any
    ) -> None:
        self.clock = clock or JumpingClock()
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.receiver.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        self.receiver.bind(("127.0.0.1", 0))
        self.receiver.settimeout(0.0)
        self.arrivals: list[tuple[float, int]] = []
        """Second and sequence number of each datagram, taken whenever the sender waits."""
        self.dscp: dict[int, int] = {}
        self.duration_s = 0.0
        """How long the last sending took."""
        if isinstance(self.clock, JumpingClock):
            self.clock.on_wait = self.take
        self.sender = DatagramSender(
            self.receiver.getsockname(),
            DatagramTerms(SIGN, **terms),
            radio=radio,
            clock=self.clock,
            stall_s=stall_s,
        )

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, _ = self.receiver.recvmsg(65536, 64)
                sequence = parse_packet(data).sequence
                self.arrivals.append((self.clock.now_s(), sequence))
                self.dscp[sequence] = ancillary[0][2][0] >> 2

    async def send(
        self, packets: list[bytes], tally: DatagramTally | None = None, **options: Any
    ) -> DatagramTally:
        tally = tally or DatagramTally()
        since_s = self.clock.now_s()
        await self.sender.send(packets, tally, **options)
        self.duration_s = self.clock.now_s() - since_s
        self.take()
        return tally

    @property
    def sequences(self) -> list[int]:
        return [sequence for _, sequence in self.arrivals]

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


Scenario = Callable[..., Awaitable[None]]


def on_ground(scenario: Scenario, radio: HandRadio, **options: Any) -> None:
    async def body() -> None:
        ground = Ground(radio, **options)
        try:
            await scenario(ground)
        finally:
            ground.close()

    go(body)


def bits_per_second(ground: Ground, since: int, until: int) -> float:
    span_s = ground.arrivals[until][0] - ground.arrivals[since][0]
    return (until - since) * FRAME_BITS / span_s
