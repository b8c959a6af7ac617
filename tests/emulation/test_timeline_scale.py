"""Emulated and wall seconds, and what links have to do for both to agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timelines import columns, random_tick

from fadelab_emulation.timeline.time_scale import REAL_TIME, Timescale

factors = st.floats(0.01, 1000)


@given(factor=factors, span_s=st.floats(0, 1e6))
def test_wall_and_emulated_seconds_are_each_others_inverse(factor: float, span_s: float) -> None:
    scale = Timescale(factor)
    assert scale.emulated_s(scale.wall_s(span_s)) == pytest.approx(span_s, rel=1e-12)
    assert scale.wall_s(factor) == pytest.approx(1.0)


@given(factor=factors)
def test_only_rates_delays_and_jitters_change(factor: float) -> None:
    tick = random_tick(3, 4, lanes=2)
    scaled = Timescale(factor).scaled(tick)
    before, after = columns(tick), columns(scaled)
    assert before.keys() == after.keys()
    for name, values in before.items():
        if name.endswith("_bps"):
            expected = values * factor
        elif name.startswith(("delay", "jitter")):
            expected = values / factor
        else:
            expected = values
        assert after[name] == pytest.approx(expected, rel=1e-12), name
    assert (scaled.index, scaled.t_s) == (tick.index, tick.t_s)


@given(factor=factors)
def test_a_window_carries_as_many_bits_and_a_delay_holds_as_many(factor: float) -> None:
    tick, scale = random_tick(0, 1), Timescale(factor)
    scaled = scale.scaled(tick)
    window_bits = scaled.rate_up_bps * scale.wall_s(20.0)
    assert window_bits == pytest.approx(tick.rate_up_bps * 20.0)
    on_their_way_bits = scaled.rate_up_bps * scaled.delay_up_s
    assert on_their_way_bits == pytest.approx(tick.rate_up_bps * tick.delay_up_s)


def test_in_real_time_a_tick_is_left_alone() -> None:
    tick = random_tick(0, 2)
    assert REAL_TIME.scaled(tick) is tick
    assert REAL_TIME.wall_s(12.5) == 12.5


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_a_factor_that_is_no_pace_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="a time_scale must be above 0, not"):
        Timescale(factor)
