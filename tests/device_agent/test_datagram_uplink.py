"""Datagrams leave at the link's rate, in contact only, and again only where that was asked for."""

import asyncio
import contextlib
import heapq
import itertools
import math
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import pytest
from tests.device_agent.agent_harness import HandRadio, go

from fadelab_agent.datagram_uplink import (
    DatagramSender,
    DatagramTally,
    DatagramTerms,
    DatagramTooLongError,
    Held,
    as_event,
)
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock, SystemClock
from fadelab_proto.datagram import FRAME_OVERHEAD_BYTES, datagram_payload_bytes
from fadelab_proto.packet import HEADER_BYTES, Packet, parse_packet

SIGN, MODULUS, UPDATE = pb.PACKET_CLASS_SIGN, pb.PACKET_CLASS_MODULUS, pb.PACKET_CLASS_UPDATE
PAYLOAD_BYTES = 958
FRAME_BITS = 8 * (PAYLOAD_BYTES + HEADER_BYTES + FRAME_OVERHEAD_BYTES)
_TURNS = 20


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
            for _ in range(_TURNS):
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


def test_packets_of_the_class_are_sent_once_each_in_order_with_their_dscp() -> None:
    async def scenario(ground: Ground) -> None:
        kinds = (SIGN, MODULUS, UPDATE)
        packets = make_packets(30, of=lambda at: kinds[at % 3])
        outcome = await ground.send(packets)
        mine = list(range(0, 30, 3))
        assert ground.sequences == mine
        assert ground.dscp == dict.fromkeys(mine, 46)
        size = sum(len(packets[at]) for at in mine)
        assert (outcome.sent, outcome.repeats, outcome.rounds) == (set(mine), 0, 0)
        assert outcome.packet_bytes == size
        assert outcome.link_bytes == size + 10 * 42
        assert (outcome.unsent, outcome.missing, outcome.errors) == (0, None, {})
        assert outcome.in_time

    on_ground(scenario, HandRadio(), dscp=46)


def test_what_was_sent_or_is_held_is_not_sent_in_a_later_attempt() -> None:
    async def scenario(ground: Ground) -> None:
        packets, tally = make_packets(20), DatagramTally()
        deadline_s = ground.clock.now_s() + 10.5 * FRAME_BITS / 1e6
        await ground.send(packets, tally, deadline_s=deadline_s)
        assert (ground.sequences, tally.unsent) == (list(range(10)), 10)
        await ground.send(packets, tally, skip={2, 12, 15})
        assert ground.sequences == [n for n in range(20) if n not in {12, 15}]
        assert (tally.datagrams, tally.repeats, tally.unsent) == (18, 0, 0)

    on_ground(scenario, HandRadio(rate_bps=1e6))


def test_whoever_waits_for_progress_hears_of_every_burst() -> None:
    async def scenario(ground: Ground) -> None:
        bursts: list[int] = []
        tally = DatagramTally()
        await ground.send(make_packets(100), tally, on_sent=lambda: bursts.append(len(tally.sent)))
        assert bursts == sorted(set(bursts))
        assert bursts[-1] == 100

    on_ground(scenario, HandRadio(rate_bps=1e7))


def test_an_event_tells_of_each_class_and_of_all() -> None:
    tallies = {
        MODULUS: DatagramTally(sent={5, 6}, repeats=3, packet_bytes=500, errors=Counter(ENOBUFS=2)),
        SIGN: DatagramTally(sent={1}, packet_bytes=80, errors=Counter(ENOBUFS=1), in_time=False),
    }
    assert as_event(tallies) == {
        "datagram_classes": ["sign", "modulus"],
        "datagram_class_packets": [1, 2],
        "datagram_class_repeats": [0, 3],
        "datagram_packets": 3,
        "datagram_repeats": 3,
        "datagram_bytes": 580,
        "datagrams_in_time": False,
        "datagram_errors": {"ENOBUFS": 3},
    }
    assert as_event({})["datagram_bytes"] == 0


def test_an_update_without_such_packets_sends_nothing() -> None:
    async def scenario(ground: Ground) -> None:
        outcome = await ground.send(make_packets(3, of=lambda _: UPDATE), held=nobody_asks)
        assert (outcome.sent, outcome.packet_bytes, ground.duration_s) == (set(), 0, 0.0)
        assert ground.arrivals == []

    on_ground(scenario, HandRadio(is_open=False))


@pytest.mark.parametrize(("rate_bps", "share"), [(2e6, 1.0), (2e6, 0.25), (3e8, 1.0), (8e3, 1.0)])
def test_no_stretch_is_faster_than_its_share_and_the_whole_is_not_slower(
    rate_bps: float, share: float
) -> None:
    async def scenario(ground: Ground) -> None:
        count = 400
        await ground.send(make_packets(count))
        assert ground.sequences == list(range(count))
        own_bps = rate_bps * share
        ideal_s = count * FRAME_BITS / own_bps
        assert ideal_s - 1e-6 <= ground.duration_s <= ideal_s + 0.0025 + FRAME_BITS / own_bps
        burst_bits = max(FRAME_BITS, own_bps * 0.02) + FRAME_BITS
        for (since_s, first), (until_s, last) in itertools.combinations(ground.arrivals[::7], 2):
            assert (last - first) * FRAME_BITS <= own_bps * (until_s - since_s) + burst_bits

    on_ground(scenario, HandRadio(rate_bps=rate_bps), rate_share=share, stall_s=math.inf)


def test_at_high_rates_each_wake_up_sends_many() -> None:
    async def scenario(ground: Ground) -> None:
        await ground.send(make_packets(1000))
        assert isinstance(ground.clock, JumpingClock)
        # 2 ms at 1 Gbit/s are 240 frames.
        assert ground.clock.waits <= 10

    on_ground(scenario, HandRadio())


def test_it_follows_a_rate_that_changes() -> None:
    radio = HandRadio(rate_bps=1e6)

    async def scenario(ground: Ground) -> None:
        packets = make_packets(300)

        def turn() -> None:
            ground.take()
            radio.rate_bps = 1e6 if len(ground.arrivals) < 100 else 4e6

        assert isinstance(ground.clock, JumpingClock)
        ground.clock.on_wait = turn
        await ground.send(packets)
        assert bits_per_second(ground, 5, 95) == pytest.approx(1e6, rel=0.02)
        assert bits_per_second(ground, 110, 290) == pytest.approx(4e6, rel=0.05)

    on_ground(scenario, radio)


def test_without_a_rate_it_waits_for_one() -> None:
    radio = HandRadio(rate_bps=0.0)

    async def scenario(ground: Ground) -> None:
        def turn() -> None:
            ground.take()
            if ground.clock.now_s() >= 1003.0:
                radio.rate_bps = 1e6

        assert isinstance(ground.clock, JumpingClock)
        ground.clock.on_wait = turn
        await ground.send(make_packets(3))
        assert ground.sequences == [0, 1, 2]
        assert 3.0 <= ground.duration_s <= 3.3

    on_ground(scenario, radio)


def test_out_of_contact_nothing_is_sent_and_in_contact_it_goes_on_at_the_rate() -> None:
    radio = HandRadio(rate_bps=1e6)

    async def scenario(ground: Ground) -> None:
        clock = ground.clock
        assert isinstance(clock, JumpingClock)
        closed = asyncio.Event()

        def close() -> None:
            ground.take()
            if len(ground.arrivals) == 10:
                radio.opened.clear()
                closed.set()

        clock.on_wait = close
        sending = asyncio.create_task(ground.send(make_packets(30)))
        await closed.wait()
        for _ in range(10 * _TURNS):
            await asyncio.sleep(0)
        ground.take()
        assert len(ground.arrivals) == 10
        clock.on_wait = ground.take
        clock.seconds += 100.0
        opened_s = clock.seconds
        radio.opened.set()
        outcome = await sending
        assert ground.sequences == list(range(30))
        # What the closed time would have been worth is not caught up with.
        assert clock.seconds - opened_s >= 20 * FRAME_BITS / 1e6 - 1e-6
        assert outcome.in_time

    on_ground(scenario, radio)


def test_the_deadline_ends_it_in_contact() -> None:
    async def scenario(ground: Ground) -> None:
        start_s = ground.clock.now_s()
        outcome = await ground.send(make_packets(300), deadline_s=start_s + 1.0)
        assert not outcome.in_time
        assert ground.duration_s == 1.0
        assert len(outcome.sent) == len(ground.arrivals)
        assert len(outcome.sent) + outcome.unsent == 300
        assert len(outcome.sent) == pytest.approx(1e6 / FRAME_BITS, abs=2)

    on_ground(scenario, HandRadio(rate_bps=1e6))


@pytest.mark.parametrize("ahead_s", [5.0, -5.0])
def test_the_deadline_ends_it_out_of_contact(ahead_s: float) -> None:
    async def scenario(ground: Ground) -> None:
        outcome = await ground.send(make_packets(3), deadline_s=ground.clock.now_s() + ahead_s)
        assert (outcome.in_time, outcome.unsent) == (False, 3)
        assert ground.duration_s == max(0.0, ahead_s)

    on_ground(scenario, HandRadio(is_open=False))


def test_the_deadline_ends_the_question_to_the_server() -> None:
    async def scenario(ground: Ground) -> None:
        async def never() -> set[int]:
            await asyncio.Event().wait()
            raise AssertionError

        deadline_s = ground.clock.now_s() + 5.0
        outcome = await ground.send(make_packets(3), deadline_s=deadline_s, held=never)
        assert (outcome.in_time, outcome.unsent, outcome.missing) == (False, 0, None)

    on_ground(scenario, HandRadio())


def test_cancelling_it_stops_it() -> None:
    async def scenario(ground: Ground) -> None:
        tasks = len(asyncio.all_tasks())
        sending = asyncio.create_task(ground.send(make_packets(3)))
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) > tasks
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert len(asyncio.all_tasks()) == tasks

    on_ground(scenario, HandRadio(is_open=False))


async def nobody_asks() -> set[int]:
    raise AssertionError


def losing(ground: Ground, lost: dict[int, int]) -> Held:
    """Answer as a server would that never got the first ``lost[n]`` copies of packet n."""

    async def held() -> set[int]:
        ground.take()
        copies = Counter(ground.sequences)
        return {n for n, count in copies.items() if count > lost.get(n, 0)}

    return held


def test_what_the_server_lacks_is_sent_again_until_it_has_all() -> None:
    async def scenario(ground: Ground) -> None:
        held = losing(ground, {2: 1, 5: 2, 8: 1})
        outcome = await ground.send(make_packets(10), held=held)
        assert ground.sequences == [*range(10), 2, 5, 8, 5]
        assert (len(outcome.sent), outcome.repeats, outcome.rounds) == (10, 4, 2)
        assert outcome.missing == 0
        assert outcome.in_time
        assert outcome.packet_bytes == 14 * (PAYLOAD_BYTES + HEADER_BYTES)

    on_ground(scenario, HandRadio(), repeats=9)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_repeats_end_after_the_configured_rounds(rounds: int) -> None:
    async def scenario(ground: Ground) -> None:
        outcome = await ground.send(make_packets(10), held=losing(ground, {4: 100, 6: 100}))
        assert (outcome.rounds, outcome.repeats, outcome.missing) == (rounds, 2 * rounds, 2)
        assert outcome.in_time

    on_ground(scenario, HandRadio(), repeats=rounds)


def test_the_server_is_asked_only_after_the_last_datagram_had_time_to_arrive() -> None:
    async def scenario(ground: Ground) -> None:
        asked_s: list[float] = []

        async def held() -> Collection[int]:
            asked_s.append(ground.clock.now_s())
            return range(3)

        await ground.send(make_packets(3), held=held)
        assert asked_s[0] - ground.arrivals[-1][0] >= 0.5 - 1e-9

    on_ground(scenario, HandRadio(rate_bps=1e6), settle_s=0.5)


def test_a_server_that_does_not_listen_is_counted_and_harms_nobody() -> None:
    async def scenario(ground: Ground) -> None:
        ground.receiver.close()
        outcome = DatagramTally()
        await ground.sender.send(make_packets(20), outcome)
        assert outcome.unsent == 0
        # The kernel limits how often it says so.
        assert outcome.errors.keys() == {"ECONNREFUSED"}
        assert 1 <= outcome.errors["ECONNREFUSED"] <= 20

    on_ground(scenario, HandRadio(), clock=SystemClock())


def test_an_error_that_will_not_pass_is_raised() -> None:
    async def scenario(ground: Ground) -> None:
        ground.sender._address = ("255.255.255.255", 9)
        with pytest.raises(OSError, match="Permission denied"):
            await ground.sender.send(make_packets(1), DatagramTally())

    on_ground(scenario, HandRadio())


def test_packets_that_do_not_fit_are_refused_before_anything_is_sent() -> None:
    async def scenario(ground: Ground) -> None:
        fitting = make_packets(2, payload_bytes=datagram_payload_bytes())
        assert (await ground.send(fitting)).sent == {0, 1}
        too_long = make_packets(2, payload_bytes=datagram_payload_bytes() + 1)
        with pytest.raises(
            DatagramTooLongError,
            match=r"a packet of 1473 bytes does not fit into a datagram of 1472 bytes "
            r"\(an MTU of 1500\): encode the update with smaller payloads",
        ):
            await ground.send([*fitting, *too_long])
        assert len(ground.arrivals) == 2

    on_ground(scenario, HandRadio())
