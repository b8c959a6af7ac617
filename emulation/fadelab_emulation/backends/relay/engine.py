"""The relay process's loop: wait for a packet, a moment or a change, and let the pipes advance."""

import heapq
import math
import os
import select
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fadelab_emulation.backends.impairment.base import Direction
from fadelab_emulation.backends.impairment.chain import LossChain, first_state
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.relay.classifier import classifier
from fadelab_emulation.backends.relay.delay_line import DelayLine
from fadelab_emulation.backends.relay.pipe import NO_LOSS, Pipe
from fadelab_emulation.backends.relay.shared_state import SharedState
from fadelab_emulation.backends.relay.timer import MonotonicTimer
from fadelab_proto.seeds import Stream, generator

_PACKET_BYTES = 2048
_BATCH_PACKETS = 32
"""Read from one interface before the others have their turn."""
_CLOSERS = 32
_REST_S = 0.001
"""How long an interface is left alone that brought a packet for which there is no room. A TUN
interface never makes a sender wait: one that sends without end would cost the relay a whole core."""
_BATCH_CHANGES = 16
_JITTER_KEY = 1 << 16
"""Stands where the losses' seeds have the lane, of which there are fewer."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What the relay process is given by the emulator."""

    device_tuns: tuple[int, ...]
    hub_tuns: tuple[int, ...]
    memory: int
    """Of the :class:`SharedState`."""
    bell: int
    """An eventfd that rings when the wishes in the shared state have changed."""
    resumed: int
    """An eventfd to ring when an uplink has resumed."""
    over: int
    """An eventfd that rings when the relay is to end. A signal would not do: one that comes just
    before the process begins to wait is only heeded after the wait (select(2), the self-pipe trick)."""
    parent: int
    """A pidfd of the emulator: readable when it has ended."""

    def all(self) -> tuple[int, ...]:
        """Return every descriptor."""
        return (
            *self.device_tuns,
            *self.hub_tuns,
            self.memory,
            self.bell,
            self.resumed,
            self.over,
            self.parent,
        )


def make_pipes(plan: LinkPlan) -> list[Pipe]:
    """Return all uplinks by device, then all downlinks."""
    classify = classifier(plan.classes)

    def make(direction: Direction, device: int, queue_bytes: int) -> Pipe:
        chains = [
            LossChain(first_state(plan.seed, device, direction, lane), NO_LOSS)
            for lane in range(1 + len(plan.classes))
        ]
        jitter = generator(plan.seed, Stream.LOSS, device, int(direction), _JITTER_KEY)
        return Pipe(classify, plan.window, queue_bytes, chains, DelayLine(jitter))

    up = [make(Direction.UP, d, queue.up_bytes) for d, queue in enumerate(plan.queues)]
    down = [make(Direction.DOWN, d, queue.down_bytes) for d, queue in enumerate(plan.queues)]
    return up + down


class Engine:
    """Moves packets between the interfaces until the emulator ends."""

    def __init__(self, plan: LinkPlan, given: Descriptors) -> None:
        self._devices = plan.devices
        self._shared = SharedState(plan.devices, 1 + len(plan.classes), given.memory)
        self._given = given
        self._pipes = make_pipes(plan)
        self._inputs = given.device_tuns + given.hub_tuns
        self._outputs = given.hub_tuns + given.device_tuns
        self._changes: dict[int, list[float]] = {}
        """Wishes for pipes that are to change."""
        self._wishes = np.zeros_like(self._shared.wishes).reshape(len(self._pipes), -1)
        self._agenda: list[tuple[float, int]] = []
        """A heap of moments and pipes to advance, or (their number added) to be read again."""
        self._noted_s = [math.inf] * len(self._pipes)
        """The moment at which each pipe goes on, unless an earlier one is noted instead."""
        self._resuming: set[int] = set()
        self._epoll = select.epoll()
        self._timer = MonotonicTimer()
        self._ended = False

    def close(self) -> None:
        """Remove the interfaces.

        The kernel takes its time for each, but for many at once hardly longer.
        """
        with ThreadPoolExecutor(_CLOSERS) as pool:
            list(pool.map(os.close, self._inputs))

    def run(self) -> None:
        """Relay; returns when the emulator says so or has ended."""
        epoll = self._epoll
        handlers: dict[int, Callable[[], None]] = {
            self._given.bell: self._obey,
            self._given.over: self._end,
            self._given.parent: self._end,
            self._timer.fileno(): _wake,
        }
        for descriptor in handlers:
            edge = select.EPOLLET if descriptor == self._timer.fileno() else 0
            epoll.register(descriptor, select.EPOLLIN | edge)
        pipe_of = {descriptor: number for number, descriptor in enumerate(self._inputs)}
        for descriptor in pipe_of:
            epoll.register(descriptor, select.EPOLLIN)
        while not self._ended:
            self._timer.set(self._agenda[0][0] if self._agenda else math.inf)
            for descriptor, _ in epoll.poll(0 if self._changes else None):
                number = pipe_of.get(descriptor)
                if number is None:
                    handlers[descriptor]()
                else:
                    self._read(number)
            self._follow_agenda()
            self._make_changes()

    def _read(self, number: int) -> None:
        """Take in what an interface has."""
        pipe, descriptor = self._pipes[number], self._inputs[number]
        now_s = time.monotonic()
        if pipe.next_s <= now_s:
            self._advance(number, now_s)
        refused = pipe.refused_packets
        for _ in range(_BATCH_PACKETS):
            try:
                packet = os.read(descriptor, _PACKET_BYTES)
            except BlockingIOError:
                break
            if pipe.refuses and self._change_at_once(number):
                now_s = time.monotonic()
            answer = pipe.receive(packet, now_s)
            if answer is not None:
                _write(descriptor, answer)
        if pipe.refused_packets > refused:
            self._rest(number, now_s)
        self._advance(number, now_s)

    def _rest(self, number: int, now_s: float) -> None:
        """Leave a flooded interface alone for a while: the kernel drops more cheaply."""
        self._epoll.modify(self._inputs[number], 0)
        heapq.heappush(self._agenda, (now_s + _REST_S, len(self._pipes) + number))

    def _follow_agenda(self) -> None:
        agenda = self._agenda
        while agenda and agenda[0][0] <= (now_s := time.monotonic()):
            due_s, number = heapq.heappop(agenda)
            if number >= len(self._pipes):
                self._epoll.modify(self._inputs[number - len(self._pipes)], select.EPOLLIN)
            elif due_s == self._noted_s[number]:  # otherwise an earlier entry took its place
                self._noted_s[number] = math.inf
                self._advance(number, now_s)

    def _advance(self, number: int, now_s: float) -> None:
        """Deliver what has come out of a pipe, tell its counts and note when it goes on."""
        pipe = self._pipes[number]
        arrived = pipe.advance(now_s)
        # First: whoever has got a packet finds it counted.
        self._shared.publish(number, pipe)
        for packet in arrived:
            _write(self._outputs[number], packet)
        if arrived and number in self._resuming:
            self._resuming.remove(number)
            self._shared.resumed_s[number] = time.monotonic()
            os.eventfd_write(self._given.resumed, 1)
        next_s = pipe.next_s
        if next_s < self._noted_s[number]:
            self._noted_s[number] = next_s
            heapq.heappush(self._agenda, (next_s, number))

    def _obey(self) -> None:
        """Note which pipes have to change, if the bell has rung."""
        try:
            os.eventfd_read(self._given.bell)
        except BlockingIOError:
            return
        wishes = self._shared.wishes.reshape(len(self._pipes), -1).copy()
        changed = np.flatnonzero((wishes != self._wishes).any(axis=1)).tolist()
        self._wishes = wishes
        self._changes.update(zip(changed, wishes[changed].tolist(), strict=True))

    def _make_changes(self) -> None:
        """Bring a few pipes into their new states; packets of others must not wait for all."""
        for _ in range(min(len(self._changes), _BATCH_CHANGES)):
            self._change(*self._changes.popitem())

    def _change_at_once(self, number: int) -> bool:
        """Bring a pipe into its new state if it has one; return whether it had.

        Whoever is told that a window has opened may send before this process has heard the bell:
        such a packet must not be refused.
        """
        self._obey()
        wishes = self._changes.pop(number, None)
        if wishes is None:
            return False
        self._change(number, wishes)
        return True

    def _change(self, number: int, wishes: list[float]) -> None:
        pipe = self._pipes[number]
        state = self._shared.pipe_state(wishes)
        now_s = time.monotonic()
        if pipe.next_s <= now_s:
            self._advance(number, now_s)
        if state.is_open != pipe.is_open and number < self._devices:
            self._watch_resumption(number, opens=state.is_open)
        pipe.change(state, now_s)
        self._advance(number, now_s)

    def _watch_resumption(self, device: int, *, opens: bool) -> None:
        if opens and any(self._pipes[device].backlogs_bytes):
            self._resuming.add(device)
        else:
            self._resuming.discard(device)

    def _end(self) -> None:
        self._ended = True


def _write(descriptor: int, packet: bytes) -> None:
    """Have a packet arrive at an interface; one that is down takes none, which loses it."""
    try:
        os.write(descriptor, packet)
    except OSError:
        return


def _wake() -> None:
    """Do nothing more: the agenda is followed after every awakening."""
