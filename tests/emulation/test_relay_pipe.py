"""One direction of a link: its parts together, through time by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from ipv4_packets import ICMP, TCP, ipv4, ports

from fadelab_emulation.backends.impairment.base import Direction, LaneLoss, PortState
from fadelab_emulation.backends.impairment.chain import first_state, loss_sequence
from fadelab_emulation.backends.plan import ClassMark, LinkPlan, QueueSizes
from fadelab_emulation.backends.relay.engine import make_pipes
from fadelab_emulation.backends.relay.pipe import NO_LOSS, Pipe, PipeState
from fadelab_emulation.window import WindowMode

RATE_BPS = 8e5
MARKED = 5000
ECN_CAPABLE = 0b10
QUEUE_BYTES = 10_000


def packet(number: int = 0, port: int = 9, wire_bytes: int = 100) -> bytes:
    return ipv4(ports(number, port, bytes(wire_bytes - 14 - 20 - 4)))


def number_of(sent: bytes) -> int:
    return int.from_bytes(sent[20:22], "big")


def state(
    rates_bps: Sequence[float] = (RATE_BPS,),
    *,
    is_open: bool = True,
    losses: Sequence[LaneLoss] = (),
    delay_s: float = 0.0,
) -> PipeState:
    lanes = tuple(losses) or (NO_LOSS,) * len(rates_bps)
    return PipeState(is_open, tuple(rates_bps), PortState(lanes, delay_s, 0.0))


def make_pipe(
    window: WindowMode = WindowMode.HOLD, classes: tuple[ClassMark, ...] = (), seed: int = 3
) -> Pipe:
    return make_pipes(LinkPlan([QueueSizes(QUEUE_BYTES, 500)], classes, window, seed))[0]


def open_pipe(window: WindowMode = WindowMode.HOLD) -> Pipe:
    pipe = make_pipe(window)
    pipe.change(state(), 0.0)
    return pipe


def run(pipe: Pipe, until_s: float) -> list[tuple[float, bytes]]:
    found: list[tuple[float, bytes]] = []
    while (now_s := pipe.next_s) <= until_s:
        found += [(now_s, arrived) for arrived in pipe.advance(now_s)]
    return found


def test_a_packet_takes_its_transmission_time_and_the_delay() -> None:
    pipe = make_pipe()
    pipe.change(state(delay_s=0.02), 0.0)
    assert pipe.receive(packet(), 1.0) is None
    assert pipe.backlogs_bytes == [100]
    assert pipe.next_s == pytest.approx(1.001)
    assert pipe.advance(1.001) == []
    assert run(pipe, 2.0) == [(pytest.approx(1.021), packet())]
    assert (pipe.counts[0].sent_bytes, pipe.counts[0].sent_packets) == (100, 1)


def test_anything_but_ipv4_is_dropped() -> None:
    pipe = open_pipe()
    pipe.receive(b"\x60" + bytes(59), 0.0)
    pipe.receive(b"\x45\x00", 0.0)
    assert (pipe.backlogs_bytes, pipe.next_s) == ([0], math.inf)


def test_classes_have_queues_and_rates_of_their_own() -> None:
    pipe = make_pipe(classes=(ClassMark(port=MARKED),))
    pipe.change(state((RATE_BPS, RATE_BPS / 4)), 0.0)
    for number in range(4):
        pipe.receive(packet(number), 0.0)
        pipe.receive(packet(10 + number, MARKED), 0.0)
    arrivals = run(pipe, 1.0)
    assert [number_of(sent) for _, sent in arrivals] == [0, 1, 2, 3, 10, 11, 12, 13] or [
        number_of(sent) for _, sent in arrivals
    ] == [0, 1, 2, 10, 3, 11, 12, 13]
    marked = [at_s for at_s, sent in arrivals if number_of(sent) >= 10]
    assert marked == pytest.approx([0.004, 0.008, 0.012, 0.016])
    assert [counts.sent_packets for counts in pipe.counts] == [4, 4]


def test_a_full_queue_costs_only_its_own_class() -> None:
    pipe = make_pipe(classes=(ClassMark(port=MARKED),))
    pipe.change(state((RATE_BPS, RATE_BPS)), 0.0)
    for number in range(150):
        pipe.receive(packet(number), 0.0)
    pipe.receive(packet(200, MARKED), 0.0)
    assert [counts.overflowed_packets for counts in pipe.counts] == [50, 0]
    assert pipe.backlogs_bytes == [QUEUE_BYTES, 100]


def tcp_packet(number: int = 0) -> bytes:
    packet = bytearray(ipv4(ports(number, 9, bytes(62)), protocol=TCP))
    packet[1] = ECN_CAPABLE
    return bytes(packet)


def test_tcp_is_marked_when_one_queue_is_full_and_has_room_for_three() -> None:
    pipe = open_pipe()
    for number in range(400):
        pipe.receive(tcp_packet(number), 0.0)
    assert pipe.backlogs_bytes == [3 * QUEUE_BYTES]
    pipe.receive(packet(), 0.0)
    assert pipe.counts[0].overflowed_packets == 101
    marked = [sent[1] & 0b11 == 0b11 for _, sent in run(pipe, 1.0)]
    assert marked == [False] * 101 + [True] * 199


def test_with_a_delay_tcp_may_have_as_much_more_in_the_queue_as_is_on_its_way() -> None:
    pipe = make_pipe()
    pipe.change(state(delay_s=0.05), 0.0)
    for number in range(250):
        pipe.receive(tcp_packet(number), 0.0)
    marked = [sent[1] & 0b11 == 0b11 for _, sent in run(pipe, 1.0)]
    assert marked.index(True) == (QUEUE_BYTES + 2 * 0.05 * RATE_BPS / 8) / 100 + 1


def test_the_packets_lost_are_those_of_the_chain_and_lanes_have_chains_of_their_own() -> None:
    pipe = make_pipe(classes=(ClassMark(port=MARKED),), seed=11)
    losses = (LaneLoss(0.01, 0.9, 0.05, 0.2), LaneLoss(0.3, 0.3, 0.0, 1.0))
    pipe.change(state((8e8, 8e8), losses=losses), 0.0)
    count = 2000
    arrived: list[int] = []
    for number in range(count):
        for port in (9, MARKED):
            pipe.receive(packet(number, port), float(number))
            arrived += [
                number * 2 + (int.from_bytes(sent[22:24], "big") == MARKED)
                for _, sent in run(pipe, number + 0.5)
            ]
    for lane, loss in enumerate(losses):
        fates = loss_sequence(first_state(11, 0, Direction.UP, lane), loss, count)
        kept = [k // 2 for k in arrived if k % 2 == lane]
        assert kept == np.flatnonzero(~fates).tolist()
        assert pipe.counts[lane].lost_packets == fates.sum()


def test_hold_keeps_packets_and_goes_on_in_the_middle_of_one() -> None:
    pipe = open_pipe()
    for number in range(3):
        pipe.receive(packet(number), 0.0)
    pipe.change(state(is_open=False), 0.0005)
    assert pipe.next_s == math.inf
    pipe.receive(packet(3), 0.7)
    assert run(pipe, 10.0) == []
    pipe.change(state(), 20.0)
    arrivals = run(pipe, 30.0)
    assert [number_of(sent) for _, sent in arrivals] == [0, 1, 2, 3]
    assert arrivals[0][0] == pytest.approx(20.0005)


@pytest.mark.parametrize("window", [WindowMode.DROP, WindowMode.REJECT, WindowMode.DOWN])
def test_other_modes_lose_what_waits_and_what_comes(window: WindowMode) -> None:
    pipe = open_pipe(window)
    for number in range(3):
        pipe.receive(packet(number), 0.0)
    assert len(pipe.advance(0.001)) == 1
    pipe.change(state(is_open=False), 0.0015)
    pipe.receive(packet(3), 0.5)
    assert (pipe.backlogs_bytes, pipe.next_s) == ([0], math.inf)
    pipe.change(state(), 1.0)
    pipe.receive(packet(4), 1.0)
    assert [number_of(sent) for _, sent in run(pipe, 2.0)] == [4]


def test_only_reject_answers() -> None:
    for window in WindowMode:
        answer = make_pipe(window).receive(packet(), 0.0)
        assert (answer is not None and answer[9] == ICMP) == (window is WindowMode.REJECT)


def test_packets_on_their_way_at_the_closing_still_arrive() -> None:
    pipe = make_pipe(WindowMode.DROP)
    pipe.change(state(delay_s=0.1), 0.0)
    pipe.receive(packet(1), 0.0)
    pipe.advance(0.001)
    pipe.change(state(is_open=False, delay_s=0.1), 0.05)
    assert [at_s for at_s, _ in run(pipe, 1.0)] == pytest.approx([0.101])


def test_directions_devices_and_seeds_lose_different_packets() -> None:
    queues = [QueueSizes(QUEUE_BYTES, QUEUE_BYTES)] * 2

    def fates(pipe: Pipe) -> list[bool]:
        pipe.change(state(losses=[LaneLoss(0.5, 0.5, 0.0, 1.0)]), 0.0)
        found = []
        for number in range(64):
            pipe.receive(packet(number), float(number))
            found.append(bool(run(pipe, number + 0.5)))
        return found

    first = [fates(pipe) for pipe in make_pipes(LinkPlan(queues, seed=1))]
    assert first == [fates(pipe) for pipe in make_pipes(LinkPlan(queues, seed=1))]
    other = [fates(pipe) for pipe in make_pipes(LinkPlan(queues, seed=2))]
    assert len({tuple(one) for one in first + other}) == 8
