"""Goodput of transfers against the integral of the programmed rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab.results.goodput import ProgrammedRate, Transfer, goodput

RATES = st.lists(st.sampled_from([0.0, 64e3, 1e6, 2.5e6]), max_size=12)
TIMES = st.tuples(st.floats(-1, 4), st.floats(-1, 4)).map(sorted)


@given(rates=RATES, times=TIMES, tick_s=st.sampled_from([0.1, 0.25, 1.0]))
def test_integrals_are_those_of_the_step_function(
    rates: list[float], times: list[float], tick_s: float
) -> None:
    from_s, to_s = times
    edges = np.arange(len(rates) + 1) * tick_s
    overlap_s = np.clip(np.minimum(to_s, edges[1:]) - np.maximum(from_s, edges[:-1]), 0, None)
    rate = ProgrammedRate(np.array(rates), tick_s)
    assert rate.bits(from_s, to_s) == pytest.approx(float(overlap_s @ np.array(rates)), abs=1e-3)
    is_open = np.array(rates) > 0
    assert rate.open_s(from_s, to_s) == pytest.approx(float(overlap_s @ is_open), abs=1e-9)


def test_goodput_counts_open_time_alone() -> None:
    # Open, closed, open: 1 Mbit/s, nothing, 3 Mbit/s.
    rate = ProgrammedRate(np.array([1e6, 0.0, 3e6]), 1.0)
    transfer = Transfer(mark_s=0.5, last_s=2.5, bytes_after_mark=200_000)
    programmed_bps, achieved_bps = goodput(rate, [transfer])
    assert programmed_bps == pytest.approx((0.5e6 + 1.5e6) / 1.0)
    assert achieved_bps == pytest.approx(8 * 200_000 / 1.0)


def test_goodput_of_several_transfers_is_weighted_by_their_open_time() -> None:
    rate = ProgrammedRate(np.array([1e6, 2e6]), 1.0)
    transfers = [Transfer(0.0, 1.0, 100_000), Transfer(1.5, 2.0, 100_000)]
    programmed_bps, achieved_bps = goodput(rate, transfers)
    assert programmed_bps == pytest.approx((1e6 + 1e6) / 1.5)
    assert achieved_bps == pytest.approx(8 * 200_000 / 1.5)


@pytest.mark.parametrize(
    "transfers",
    [[], [Transfer(0.5, 0.5, 100)], [Transfer(0.2, 0.5, 0)], [Transfer(5.0, 6.0, 100)]],
)
def test_there_is_no_goodput_without_a_timed_transfer_over_an_open_link(
    transfers: list[Transfer],
) -> None:
    assert goodput(ProgrammedRate(np.array([1e6]), 1.0), transfers) == (None, None)
