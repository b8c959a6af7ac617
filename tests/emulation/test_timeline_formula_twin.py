"""The formula twin against times worked out by hand and against a step-by-step account."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timelines import rate_ticks, recording

from fadelab_emulation.timeline.formula_twin import TCP, UDP, FormulaTwin, Framing, transfer_end_s
from fadelab_emulation.timeline.link_track import LinkTrack

BARE = Framing(payload_bytes=1000, header_bytes=0)
MTU_BITS = 8 * 1514


def track(
    rate_bps: list[float], *, tick_s: float = 0.1, delay_s: float = 0.0, loss_up: float = 0.0
) -> LinkTrack:
    ticks = rate_ticks(rate_bps, tick_s=tick_s, delay_s=delay_s, loss_up=loss_up)
    return LinkTrack.of_ticks(ticks, tick_s, 0, uplink=True)


def end_s(
    link: LinkTrack,
    message_bytes: float,
    start_s: float,
    *,
    framing: Framing = BARE,
    resends: bool = False,
) -> float:
    twin = FormulaTwin(link, resends=resends)
    ends = twin.transfer_end_s(np.array([message_bytes]), np.array([start_s]), framing)
    return float(ends[0])


def test_a_steady_link_takes_bits_over_rate_and_then_the_delay() -> None:
    link = track([1e6] * 50, delay_s=0.02)
    assert end_s(link, 125_000, 0.5) == pytest.approx(0.5 + 1.0 + 0.02)


def test_a_closed_window_is_waited_for_wherever_the_message_is() -> None:
    link = track([1e6] * 10 + [0] * 20 + [2e6] * 10)
    # 0.25 s before the closing, the rest of 0.75 Mbit at twice the rate from 3 s on.
    assert end_s(link, 125_000, 0.75) == pytest.approx(3.0 + 0.375)
    assert end_s(link, 125_000, 2.0) == pytest.approx(3.5)


def test_a_message_that_just_fits_is_through_when_the_window_closes() -> None:
    link = track([1.1e6] * 7 + [0] * 20 + [1e6] * 10)
    assert end_s(link, 1.1e6 * 0.7 / 8, 0.0) == pytest.approx(0.7)


def test_what_the_recording_does_not_cover_never_ends() -> None:
    assert end_s(track([1e6] * 10), 125_001, 0.0) == math.inf
    assert end_s(track([1e6] * 10), 1, 5.0) == math.inf
    assert end_s(track([0.0] * 10), 1, 0.0) == math.inf
    assert end_s(track([]), 1, 0.0) == math.inf


def test_frames_carry_their_headers() -> None:
    link = track([1e6] * 100)
    assert end_s(link, 1448 * 50, 0.0, framing=TCP) == pytest.approx(50 * MTU_BITS / 1e6)
    assert end_s(link, 1472 * 50, 0.0, framing=UDP) == pytest.approx(50 * MTU_BITS / 1e6)
    assert end_s(link, 1448 * 50 + 1, 0.0, framing=TCP) == pytest.approx(
        (50 * MTU_BITS + 8 * 67) / 1e6
    )


def test_losses_cost_time_only_where_they_are_made_up_for() -> None:
    link = track([1e6] * 200, loss_up=0.2)
    assert end_s(link, 125_000, 0.0) == pytest.approx(1.0)
    assert end_s(link, 125_000, 0.0, resends=True) == pytest.approx(1.25)


def stepwise_end_s(rate_bps: list[float], tick_s: float, bits: float, start_s: float) -> float:
    """The same by walking from tick to tick."""
    t_s = start_s
    for index, rate in enumerate(rate_bps):
        left_s = (index + 1) * tick_s - max(t_s, index * tick_s)
        if left_s <= 0:
            continue
        t_s = max(t_s, index * tick_s)
        if rate > 0 and bits <= rate * left_s + 0.005:
            return t_s + bits / rate
        bits -= rate * left_s
    return math.inf


@given(
    rates=st.lists(st.sampled_from([0.0, 64e3, 1e6, 7e6, 123456.0]), min_size=1, max_size=40),
    tick_s=st.sampled_from([0.01, 0.1, 0.25]),
    message=st.integers(1, 300_000),
    start=st.floats(0, 1),
)
def test_it_agrees_with_walking_from_tick_to_tick(
    rates: list[float], tick_s: float, message: int, start: float
) -> None:
    start_s = start * tick_s * len(rates)
    expected = stepwise_end_s(rates, tick_s, 8.0 * message, start_s)
    assert end_s(track(rates, tick_s=tick_s), message, start_s) == pytest.approx(expected, rel=1e-9)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rates=st.lists(st.sampled_from([0.0, 1e6, 3e6]), min_size=5, max_size=20))
def test_a_recording_and_its_ticks_say_the_same(tmp_path: Path, rates: list[float]) -> None:
    down_bps = rates[::-1]
    ticks = rate_ticks(rates, down_bps, delay_s=0.05)
    reader = recording(tmp_path / "links", ticks)
    for uplink in (True, False):
        twin = FormulaTwin(LinkTrack.of_ticks(ticks, 0.1, 0, uplink=uplink, lane=0))
        ends = twin.transfer_end_s(np.array([20_000.0, 90_000.0]), np.array([0.0, 0.25]))
        for size, start_s, end in ((20_000, 0.0, ends[0]), (90_000, 0.25, ends[1])):
            found = transfer_end_s(reader, 0, payload_bytes=size, start_s=start_s, uplink=uplink)
            assert found == pytest.approx(end)


def test_ten_thousand_messages_are_no_work() -> None:
    zeros = np.zeros(36_000)
    twin = FormulaTwin(LinkTrack(0.1, zeros + 1e6, zeros, zeros))
    starts = np.linspace(0, 3000, 10_000)
    ends = twin.transfer_end_s(np.full(10_000, 14480.0), starts, TCP)
    assert ends - starts == pytest.approx(np.full(10_000, 10 * MTU_BITS / 1e6), rel=1e-6)


def test_impossible_questions_are_refused(tmp_path: Path) -> None:
    reader = recording(tmp_path / "links", rate_ticks([1e6] * 5))
    with pytest.raises(ValueError, match="there is no device 1 among 1"):
        transfer_end_s(reader, 1, payload_bytes=1, start_s=0)
    with pytest.raises(ValueError, match="there is no packet class 2 among 1"):
        transfer_end_s(reader, 0, payload_bytes=1, start_s=0, lane=2)
    for size, start_s in ((0, 0.0), (1, -0.1)):
        with pytest.raises(ValueError, match="at least one byte and a start at 0 s or later"):
            transfer_end_s(reader, 0, payload_bytes=size, start_s=start_s)
    with pytest.raises(ValueError, match="a frame of 0 payload and 66 header bytes cannot be"):
        Framing(payload_bytes=0, header_bytes=66)
