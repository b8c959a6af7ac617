"""A link of the formula twin: windows, rates at other powers, and when messages are through."""

import math

import numpy as np
import pytest

from fadelab.twin.timeline import TwinLink

TICK_S = 0.5
FULL_W = 0.2
SNR_DB = 30.0
OPEN = [0, 1, 1, 1, 0, 0, 1, 1]
"""In contact from 0.5 to 2 s and from 3 to 4 s."""


def make(power_w: list[float] | None = None, **columns: float | list[float]) -> TwinLink:
    ticks = len(OPEN)
    usual = {
        "rate_up_bps": 1e6,
        "rate_down_bps": 2e6,
        "snr_up_db": SNR_DB,
        "predicted_contact_s": 9.0,
        "delay_up_s": 0.0,
        "delay_down_s": 0.0,
        "loss_up": 0.0,
        "loss_down": 0.0,
    }
    return TwinLink(
        TICK_S,
        np.array(OPEN, dtype=np.bool_),
        {name: np.zeros(ticks) + value for name, value in (usual | columns).items()},
        np.array(power_w or [FULL_W] * ticks),
    )


def wire_bits(message_bytes: int) -> int:
    """Return the bits of full TCP segments with 66 bytes of headers each."""
    return 8 * (message_bytes + 66 * math.ceil(message_bytes / 1448))


def test_windows_are_found_from_any_moment() -> None:
    link = make()
    assert [link.is_open(t_s) for t_s in (0.0, 0.49, 0.5, 1.99, 2.0, 3.9, 4.0, 99.0)] == [
        False,
        False,
        True,
        True,
        False,
        True,
        False,
        False,
    ]
    assert [link.next_open_s(t_s) for t_s in (0.0, 0.7, 2.0, 3.2)] == [0.5, 0.7, 3.0, 3.2]
    assert math.isinf(link.next_open_s(4.0))
    assert [link.window_end_s(t_s) for t_s in (0.5, 1.9, 2.4, 3.5)] == [2.0, 2.0, 2.4, 4.0]


def test_a_sum_of_floats_that_ends_a_little_early_belongs_to_the_tick() -> None:
    tenth = TwinLink(0.1, np.array([0, 0, 0, 1], dtype=np.bool_), {}, np.full(4, FULL_W))
    assert 0.1 + 0.1 + 0.1 != 0.3
    assert tenth.is_open(3 * 0.1)
    assert tenth.is_open(0.3 - 1e-12)


def test_another_power_moves_rate_and_snr_as_shannon_says() -> None:
    link = make()
    view = link.view(0.6, FULL_W / 10)
    assert view.snr_db == pytest.approx(20.0)
    assert view.rate_up_bps == pytest.approx(1e6 * math.log2(1 + 100) / math.log2(1 + 1000))
    assert (view.power_w, view.rate_down_bps, view.reported_s) == (FULL_W / 10, 2e6, 0.5)
    # As time goes on without a report, less of the contact remains.
    assert view.remaining_contact_s(0.9) == pytest.approx(9.0 - 0.4)


def test_a_recorded_power_gives_the_recorded_rate_and_full_power_more() -> None:
    lowered = make([FULL_W, 0.02, *[FULL_W] * 6])
    assert lowered.view(0.6, 0.02).rate_up_bps == 1e6
    full_bps = lowered.view(0.6, FULL_W).rate_up_bps
    assert full_bps == pytest.approx(1e6 * math.log2(1 + 10_000) / math.log2(1 + 1000))
    assert lowered.view(1.1, FULL_W).rate_up_bps == 1e6


def test_without_a_known_snr_power_changes_no_rate() -> None:
    unknown = make(snr_up_db=-math.inf)
    assert unknown.view(0.6, 0.01).rate_up_bps == 1e6


def test_a_message_is_through_when_its_frames_are() -> None:
    link = make(delay_up_s=0.03)
    carried = link.upload(100_000, 0.75, 2.0, FULL_W)
    assert carried.end_s == pytest.approx(0.75 + wire_bits(100_000) / 1e6 + 0.03)
    assert carried.share == 1.0
    # At half the power the same takes as much longer as the rate is lower.
    slower = link.upload(100_000, 0.75, 2.0, FULL_W / 2)
    ratio = math.log2(1 + 1000) / math.log2(1 + 500)
    assert slower.end_s - 0.78 == pytest.approx((carried.end_s - 0.78) * ratio)


def test_what_is_lost_is_sent_again() -> None:
    carried = make(loss_up=0.2).upload(50_000, 0.5, 2.0, FULL_W)
    assert carried.end_s == pytest.approx(0.5 + wire_bits(50_000) / 0.8e6)


def test_the_end_of_a_window_cuts_a_message() -> None:
    carried = make().upload(400_000, 0.5, 2.0, FULL_W)
    assert math.isinf(carried.end_s)
    assert carried.share == pytest.approx(1.5e6 / wire_bits(400_000))
    down = make().download(300_000, 0.5, 2.0)
    assert down.end_s == pytest.approx(0.5 + wire_bits(300_000) / 2e6)


def test_a_message_that_the_delay_brings_after_the_window_is_not_in_time() -> None:
    bytes_ = 170_000
    assert 0.5 + wire_bits(bytes_) / 1e6 < 2.0
    assert math.isfinite(make().upload(bytes_, 0.5, 2.0, FULL_W).end_s)
    late = make(delay_up_s=0.2).upload(bytes_, 0.5, 2.0, FULL_W)
    assert (late.end_s, late.share) == (math.inf, 1.0)


def test_nothing_is_carried_from_the_end_of_the_recording_on() -> None:
    carried = make().upload(1000, 4.0, 4.0, FULL_W)
    assert (carried.end_s, carried.share) == (math.inf, 0.0)
