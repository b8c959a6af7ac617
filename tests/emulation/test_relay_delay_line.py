"""Delay and jitter without overtaking."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_emulation.backends.relay.delay_line import MAX_DEVIATIONS, DelayLine, longest_s


def make_line(delay_s: float, jitter_s: float = 0.0, seed: int = 1) -> DelayLine:
    line = DelayLine(np.random.default_rng(seed))
    line.change(delay_s, jitter_s)
    return line


def arrival_times(line: DelayLine) -> list[float]:
    times = []
    while line.next_s < math.inf:
        times.append(line.next_s)
        assert len(line.arrivals(line.next_s)) >= 1
    return times


def test_packets_arrive_after_the_delay_in_order() -> None:
    line = make_line(0.02)
    line.add(b"a", 1.0)
    line.add(b"b", 1.005)
    assert line.next_s == pytest.approx(1.02)
    assert line.arrivals(1.0199) == []
    assert line.arrivals(1.021) == [b"a"]
    assert line.arrivals(2.0) == [b"b"]
    assert line.next_s == math.inf


def test_jitter_is_normal_where_packets_are_far_apart() -> None:
    line = make_line(0.05, 0.004)
    sent_s = np.arange(20_000) * 1.0
    for at_s in sent_s:
        line.add(b"", at_s)
    delays_s = np.array(arrival_times(line)) - sent_s
    assert delays_s.mean() == pytest.approx(0.05, abs=0.0002)
    assert delays_s.std() == pytest.approx(0.004, rel=0.03)
    assert np.mean(np.abs(delays_s - 0.05) < 0.004) == pytest.approx(0.6827, abs=0.02)
    assert delays_s.max() <= longest_s(0.05, 0.004) + 1e-9
    assert longest_s(0.05, 0.004) == pytest.approx(0.05 + MAX_DEVIATIONS * 0.004)


def test_a_seed_gives_one_sequence_and_another_seed_another() -> None:
    def times(seed: int) -> list[float]:
        line = make_line(0.05, 0.01, seed)
        for second in range(20):
            line.add(b"", float(second))
        return arrival_times(line)

    assert times(1) == times(1)
    assert times(1) != times(2)


@given(
    gaps_s=st.lists(st.floats(0, 0.02), min_size=1, max_size=100),
    delay_s=st.floats(0, 0.05),
    jitter_s=st.floats(0, 0.05),
)
def test_nothing_overtakes_and_nothing_arrives_before_it_is_sent(
    gaps_s: list[float], delay_s: float, jitter_s: float
) -> None:
    line = make_line(delay_s, jitter_s)
    sent_s = np.cumsum(gaps_s)
    for number, at_s in enumerate(sent_s.tolist()):
        line.add(bytes([number]), at_s)
    arrived, times = [], []
    while line.next_s < math.inf:
        times.append(line.next_s)
        packets = line.arrivals(line.next_s)
        arrived += packets
        times += [times[-1]] * (len(packets) - 1)
    assert arrived == [bytes([number]) for number in range(len(gaps_s))]
    assert all(at >= sent for at, sent in zip(times, sent_s.tolist(), strict=True))


def test_a_shorter_delay_lets_later_packets_catch_up_but_not_overtake() -> None:
    line = make_line(0.1)
    line.add(b"a", 0.0)
    line.change(0.01, 0.0)
    line.add(b"b", 0.001)
    line.add(b"c", 0.095)
    assert line.arrivals(0.1) == [b"a", b"b"]
    assert line.next_s == pytest.approx(0.105)
