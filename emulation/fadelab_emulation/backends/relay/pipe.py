"""One direction of one link, composed of its parts: classes, gate, queues, loss, delay."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

from fadelab_emulation.backends.impairment.base import LaneLoss, PortState
from fadelab_emulation.backends.impairment.chain import LossChain
from fadelab_emulation.backends.relay.classifier import Classifier
from fadelab_emulation.backends.relay.delay_line import DelayLine
from fadelab_emulation.backends.relay.ecn import congestion_experienced
from fadelab_emulation.backends.relay.icmp import host_unreachable
from fadelab_emulation.backends.relay.lane import ETHERNET_BYTES, Lane
from fadelab_emulation.window import WindowMode

NO_LOSS = LaneLoss(in_good=0.0, in_bad=0.0, to_bad=0.0, to_good=1.0)
"""What chains begin with."""
_IPV4 = 4
_IPV4_HEADER_BYTES = 20
_TCP = 6


class PipeState(NamedTuple):
    """What a pipe is to be."""

    is_open: bool
    rates_bps: tuple[float, ...]
    """Per lane, default class first."""
    port: PortState

    @classmethod
    def closed(cls, lanes: int) -> Self:
        """Return the state in which links begin."""
        return cls(
            is_open=False,
            rates_bps=(0.0,) * lanes,
            port=PortState((NO_LOSS,) * lanes, delay_s=0.0, jitter_s=0.0),
        )


class LaneCounts:
    """What became of one class's packets."""

    __slots__ = ("lost_packets", "overflowed_packets", "sent_bytes", "sent_packets")

    def __init__(self) -> None:
        self.sent_bytes = 0
        """Layer-2 bytes that left the serialiser."""
        self.sent_packets = 0
        self.lost_packets = 0
        """How many of them were lost afterwards."""
        self.overflowed_packets = 0
        """Packets for which the queue had no room."""


class Pipe:
    """Takes packets in at one end and tells which ones come out at the other, and when.

    While it is closed, ``window`` says what befalls packets: with ``hold`` queues fill and nothing
    is sent; otherwise the queues are emptied at the closing, and what comes is refused, with an
    answer to the sender if it is ``reject``. Packets that have left the serialiser before the
    closing arrive after their delay.

    A queue in the kernel holds TCP back before it overflows (TCP Small Queues); packets that came
    through a TUN interface count as gone there. Instead, TCP is told by marks when one queue is
    full, and has the room of three: by the time a sender in slow start has heard, it has sent
    twice as much. Everything else is dropped when one queue is full.
    """

    def __init__(
        self,
        classify: Classifier,
        window: WindowMode,
        queue_bytes: int,
        chains: Sequence[LossChain],
        line: DelayLine,
    ) -> None:
        self._classify = classify
        self._window = window
        self._chains = chains
        self._line = line
        self._queue_bytes = queue_bytes
        self._marks_bytes = [float(queue_bytes)] * len(chains)
        self._lanes = [Lane(queue_bytes) for _ in chains]
        self._state = PipeState.closed(len(chains))
        self.refused_packets = 0
        """Packets that found their queue full or the window closed."""
        self.counts = [LaneCounts() for _ in chains]

    @property
    def is_open(self) -> bool:
        """Whether packets pass."""
        return self._state.is_open

    @property
    def refuses(self) -> bool:
        """Whether packets that come are not even queued."""
        return not self._state.is_open and self._window is not WindowMode.HOLD

    @property
    def backlogs_bytes(self) -> list[int]:
        """Layer-2 bytes that wait in each lane's queue."""
        return [lane.backlog_bytes for lane in self._lanes]

    @property
    def next_s(self) -> float:
        """When there is something to do; infinity if nothing is under way."""
        due_s = self._line.next_s
        for lane in self._lanes:
            due_s = min(due_s, lane.finish_s)
        return due_s

    def change(self, state: PipeState, now_s: float) -> None:
        """Go over to another state; what was due by ``now_s`` has been advanced."""
        for chain, old, new in zip(
            self._chains, self._state.port.losses, state.port.losses, strict=True
        ):
            if new != old:
                chain.change(new)
        self._line.change(state.port.delay_s, state.port.jitter_s)
        for number, rate_bps in enumerate(state.rates_bps):
            lane = self._lanes[number]
            lane.set_rate(rate_bps if state.is_open else 0.0, now_s)
            # As much again as is on its way there and back, so that slowing down empties no link.
            on_its_way = 2 * state.port.delay_s * rate_bps / 8
            self._marks_bytes[number] = self._queue_bytes + on_its_way
            if not state.is_open and self._window is not WindowMode.HOLD:
                lane.clear()
        self._state = state

    def receive(self, packet: bytes, now_s: float) -> bytes | None:
        """Take in what the sender's kernel sent; return an answer to the sender, if there is one.

        Anything but IPv4 is dropped.
        """
        if len(packet) < _IPV4_HEADER_BYTES or packet[0] >> 4 != _IPV4:
            return None
        if self.refuses:
            self.refused_packets += 1
            return host_unreachable(packet) if self._window is WindowMode.REJECT else None
        number = self._classify(packet)
        lane, extra_bytes = self._lanes[number], 0.0
        if packet[9] == _TCP:
            mark_bytes = self._marks_bytes[number]
            extra_bytes = 3 * mark_bytes - self._queue_bytes
            if lane.backlog_bytes > mark_bytes:
                packet = congestion_experienced(packet)
        if not lane.accept(packet, now_s, extra_bytes):
            self.counts[number].overflowed_packets += 1
            self.refused_packets += 1
        return None

    def advance(self, now_s: float) -> list[bytes]:
        """Let time go on to ``now_s`` and return the packets that have come out."""
        while True:
            number, lane = self._first_lane()
            if lane.finish_s > now_s:
                break
            packet, sent_s = lane.take(now_s)
            counts = self.counts[number]
            counts.sent_bytes += len(packet) + ETHERNET_BYTES
            counts.sent_packets += 1
            if self._chains[number].lost():
                counts.lost_packets += 1
            else:
                self._line.add(packet, sent_s)
        return self._line.arrivals(now_s)

    def _first_lane(self) -> tuple[int, Lane]:
        """Return the lane whose packet is out first, with its number."""
        first, first_s = 0, math.inf
        for number, lane in enumerate(self._lanes):
            if lane.finish_s < first_s:
                first, first_s = number, lane.finish_s
        return first, self._lanes[first]
