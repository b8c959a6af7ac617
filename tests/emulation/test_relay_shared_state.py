"""Emulator and relay process see the same numbers."""

import os

import numpy as np
import pytest

from fadelab_emulation.backends.impairment.base import LaneLoss
from fadelab_emulation.backends.plan import ClassMark, LinkPlan, QueueSizes
from fadelab_emulation.backends.relay.engine import make_pipes
from fadelab_emulation.backends.relay.shared_state import SharedState


@pytest.fixture
def two_sides() -> tuple[SharedState, SharedState]:
    emulator = SharedState(3, 2)
    return emulator, SharedState(3, 2, os.dup(emulator.descriptor))


def test_wishes_written_through_views_are_read_on_the_other_side(
    two_sides: tuple[SharedState, SharedState],
) -> None:
    emulator, relay = two_sides
    for view in (emulator.lanes, emulator.is_open, emulator.delay_s, emulator.jitter_s):
        assert np.shares_memory(view, emulator.wishes)
    emulator.lanes[1, 2] = [[5e6, 0.1, 0.2, 0.3, 0.4], [7e6, 0.5, 0.6, 0.7, 0.8]]
    emulator.delay_s[1, 2] = 0.02
    emulator.jitter_s[1, 2] = 0.003
    emulator.is_open[1, 2] = 1
    state = relay.pipe_state(relay.wishes[1, 2].tolist())
    assert state.is_open
    assert state.rates_bps == (5e6, 7e6)
    assert state.port.losses == (LaneLoss(0.1, 0.2, 0.3, 0.4), LaneLoss(0.5, 0.6, 0.7, 0.8))
    assert (state.port.delay_s, state.port.jitter_s) == (0.02, 0.003)
    assert np.count_nonzero(relay.wishes) == 13


def test_counts_of_a_pipe_come_out_where_they_belong(
    two_sides: tuple[SharedState, SharedState],
) -> None:
    emulator, relay = two_sides
    pipe = make_pipes(LinkPlan([QueueSizes(9000, 9000)], (ClassMark(port=1),)))[0]
    first, second = pipe.counts
    first.sent_bytes, first.sent_packets, first.lost_packets = 1 << 40, 11, 12
    second.overflowed_packets = 13
    relay.publish(3 + 1, pipe)
    reading = emulator.read_lanes()
    assert reading.sent_bytes.shape == (2, 3, 2)
    assert reading.sent_bytes[1, 1, 0] == 1 << 40
    assert (reading.sent_packets[1, 1, 0], reading.lost_packets[1, 1, 0]) == (11, 12)
    assert reading.overflowed_packets[1, 1, 1] == 13
    assert sum(np.count_nonzero(words) for words in reading) == 4
