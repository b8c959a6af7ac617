"""The queue and serialiser of one packet class, driven by hand through time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_emulation.backends.relay.lane import CREDIT_BYTES, CREDIT_S, ETHERNET_BYTES, Lane

RATE_BPS = 8e5
"""A hundred thousand bytes a second: 1 ms for a packet of 100 bytes."""
PACKET_S = 0.001


def packet(number: int = 0, wire_bytes: int = 100) -> bytes:
    return number.to_bytes(2, "big") + bytes(wire_bytes - ETHERNET_BYTES - 2)


def full_lane(packets: int, limit_bytes: int = 100_000) -> Lane:
    lane = Lane(limit_bytes)
    lane.set_rate(RATE_BPS, 0.0)
    for number in range(packets):
        lane.accept(packet(number), 0.0)
    return lane


def take_due(lane: Lane, now_s: float) -> list[tuple[int, float]]:
    taken = []
    while lane.finish_s <= now_s:
        sent, at_s = lane.take(now_s)
        taken.append((int.from_bytes(sent[:2], "big"), at_s))
    return taken


def test_packets_leave_one_after_another_at_the_rate() -> None:
    lane = full_lane(3)
    assert lane.backlog_bytes == 300
    assert lane.finish_s == pytest.approx(PACKET_S)
    assert take_due(lane, 0.0009) == []
    assert take_due(lane, 0.0011) == [(0, pytest.approx(0.001))]
    assert lane.backlog_bytes == 200
    assert take_due(lane, 0.0031) == [(1, pytest.approx(0.002)), (2, pytest.approx(0.003))]
    assert (lane.backlog_bytes, lane.finish_s) == (0, math.inf)


def test_a_packet_that_finds_the_lane_idle_starts_when_it_comes() -> None:
    lane = full_lane(1)
    take_due(lane, 0.001)
    lane.accept(packet(), 0.5)
    assert lane.finish_s == pytest.approx(0.501)


def test_of_thirty_packets_at_once_the_first_ten_fit_a_queue_for_ten() -> None:
    lane = Lane(1000)
    lane.set_rate(RATE_BPS, 0.0)
    fits = [lane.accept(packet(number), 0.0) for number in range(30)]
    assert fits == [True] * 10 + [False] * 20
    left = [take_due(lane, lane.finish_s)[0][0] for _ in range(10)]
    assert (left, lane.backlog_bytes) == (list(range(10)), 0)


def test_room_comes_with_every_packet_that_has_left() -> None:
    lane = Lane(1000)
    lane.set_rate(RATE_BPS, 0.0)
    for number in range(10):
        lane.accept(packet(number), 0.0)
    take_due(lane, 0.0021)
    assert [lane.accept(packet(number), 0.0021) for number in (10, 11, 12)] == [True, True, False]


@given(
    lateness_s=st.lists(st.floats(0, CREDIT_S * 0.99), min_size=50, max_size=50),
)
def test_small_delays_of_the_caller_do_not_add_up(lateness_s: list[float]) -> None:
    lane = full_lane(50)
    times = []
    for late_s in lateness_s:
        times += [at_s for _, at_s in take_due(lane, min(lane.finish_s, 1.0) + late_s)]
    assert times == pytest.approx([PACKET_S * (1 + k) for k in range(len(times))])


def test_after_a_long_delay_only_the_credit_is_made_up_for() -> None:
    lane = full_lane(500)
    late_s = 0.1
    made_up = take_due(lane, late_s)
    assert len(made_up) == 1 + CREDIT_BYTES // 100
    assert late_s < lane.finish_s <= late_s + PACKET_S


def test_at_high_rates_the_credit_is_a_time() -> None:
    lane = Lane(10_000_000)
    lane.set_rate(1e9, 0.0)
    for number in range(3000):
        lane.accept(packet(number, 1250), 0.0)
    assert len(take_due(lane, 0.020)) == pytest.approx(CREDIT_S / 1e-5, abs=2)


def test_a_change_of_rate_holds_for_the_packet_being_sent() -> None:
    lane = full_lane(2)
    lane.set_rate(RATE_BPS / 4, 0.0005)
    assert lane.finish_s == pytest.approx(0.0005 + 4 * 0.0005)
    lane.set_rate(RATE_BPS * 2, 0.0010)
    left = 1 - 0.5 - 0.125
    assert lane.finish_s == pytest.approx(0.0010 + left * PACKET_S / 2)


@given(changes=st.lists(st.floats(0, 3e6), min_size=1, max_size=20))
def test_what_is_sent_is_the_integral_of_the_rate(changes: list[float]) -> None:
    lane = full_lane(400)
    step_s = 0.0107
    sent, now_s, bits = 0, 0.0, 0.0
    for rate_bps in changes:
        lane.set_rate(rate_bps, now_s)
        bits += rate_bps * step_s
        end_s = now_s + step_s
        while lane.finish_s <= end_s:
            lane.take(lane.finish_s)
            sent += 100
        now_s = end_s
    assert sent == pytest.approx(min(bits / 8, 40_000), abs=100.01)


def test_rate_zero_holds_everything_and_loses_nothing() -> None:
    lane = full_lane(2)
    lane.set_rate(0.0, 0.0004)
    assert lane.finish_s == math.inf
    lane.set_rate(RATE_BPS, 5.0)
    assert take_due(lane, 6.0)[0] == (0, pytest.approx(5.0006))


def test_clearing_empties_the_queue_and_the_serialiser() -> None:
    lane = full_lane(3)
    lane.clear()
    assert (lane.backlog_bytes, lane.finish_s) == (0, math.inf)
    lane.accept(packet(7), 1.0)
    assert take_due(lane, 2.0) == [(7, pytest.approx(1.001))]
