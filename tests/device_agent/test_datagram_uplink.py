"""Datagrams leave at the link's rate, in contact only, and again only where that was asked for."""

import asyncio
import itertools
import math
from collections import Counter

import pytest
from tests.device_agent.agent_harness import HandRadio
from tests.device_agent.datagram_ground import (
    FRAME_BITS,
    MODULUS,
    SIGN,
    TURNS,
    UPDATE,
    Ground,
    JumpingClock,
    bits_per_second,
    make_packets,
    on_ground,
)

from fadelab_agent.datagram_uplink import (
    DatagramTally,
    DatagramTooLongError,
    as_event,
)
from fadelab_proto.clock import SystemClock
from fadelab_proto.datagram import datagram_payload_bytes


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


async def nobody_asks() -> set[int]:
    raise AssertionError


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
        for _ in range(10 * TURNS):
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
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) > tasks
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert len(asyncio.all_tasks()) == tasks

    on_ground(scenario, HandRadio(is_open=False))


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
