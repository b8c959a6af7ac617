"""Timing a transfer from a mark after its first eighth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab_proto.transfer_timer import TransferTimer


def test_before_anything_arrives_nothing_is_known() -> None:
    timer = TransferTimer(16)
    assert (timer.mark_s, timer.last_s, timer.bytes_after_mark) == (None, None, 0)


def test_the_mark_comes_after_an_eighth() -> None:
    timer = TransferTimer(16)
    timer.arrived(100, 1.0)
    assert timer.mark_s is None
    timer.arrived(100, 2.0)
    assert (timer.mark_s, timer.bytes_after_mark) == (2.0, 0)
    for number in range(14):
        timer.arrived(100, 3.0 + number)
    assert (timer.mark_s, timer.last_s, timer.bytes_after_mark) == (2.0, 16.0, 1400)


@pytest.mark.parametrize("packets", [1, 7, 8, 15])
def test_a_short_transfer_is_marked_at_its_first_packet(packets: int) -> None:
    timer = TransferTimer(packets)
    timer.arrived(100, 5.0)
    assert (timer.mark_s, timer.last_s, timer.bytes_after_mark) == (5.0, 5.0, 0)


@given(st.lists(st.integers(1, 10000), min_size=1, max_size=200))
def test_bytes_between_mark_and_end_give_the_rate_of_an_even_flow(sizes: list[int]) -> None:
    """Packets that arrive back to back at 1 kB/s are timed to exactly that, whatever their sizes."""
    timer, now_s = TransferTimer(len(sizes)), 0.0
    for size in sizes:
        now_s += size / 1000
        timer.arrived(size, now_s)
    assert timer.mark_s is not None
    assert timer.last_s == now_s
    assert timer.bytes_after_mark == pytest.approx(1000 * (timer.last_s - timer.mark_s), abs=1e-3)
