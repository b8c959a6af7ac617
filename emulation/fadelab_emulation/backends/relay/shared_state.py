"""What the emulator and the relay process tell each other: arrays in one piece of shared memory.

The emulator writes what links are to be, the relay what they did; each field is one aligned word
of 8 bytes with one writer, which processors store and load whole. The emulator rings a bell after
every change, so a reading that falls into the middle of a change is soon followed by one that does
not; no field needs another one of the same moment.
"""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fadelab_emulation.backends.impairment.base import LaneLoss, PortState
from fadelab_emulation.backends.relay.pipe import Pipe, PipeState
from fadelab_emulation.link_state import FloatArray, IntArray

DIRECTIONS = 2
_WORD_BYTES = 8
_LANE_WISHES = 5
_OPEN, _DELAY, _JITTER, _FIRST_LANE = 0, 1, 2, 3
_LANE_COUNTS = 5


class LaneReading(NamedTuple):
    """Counts of all lanes, each with shape ``(2, devices, lanes)``: uplinks, then downlinks."""

    sent_bytes: IntArray
    sent_packets: IntArray
    lost_packets: IntArray
    overflowed_packets: IntArray
    backlog_bytes: IntArray


@dataclass(frozen=True, slots=True)
class _Layout:
    """How many words of what lie where."""

    devices: int
    lanes: int

    @property
    def wish_words(self) -> int:
        return _FIRST_LANE + _LANE_WISHES * self.lanes

    @property
    def count_words(self) -> int:
        return _LANE_COUNTS * self.lanes

    @property
    def bytes(self) -> int:
        pipes = DIRECTIONS * self.devices
        return _WORD_BYTES * (pipes * (self.wish_words + self.count_words) + self.devices)


class SharedState:
    """The arrays, in memory behind a descriptor that may be handed to another process.

    Args:
        devices: number of links.
        lanes: packet classes, the default one included.
        descriptor: memory made by another SharedState; None makes some, filled with zeros.

    """

    def __init__(self, devices: int, lanes: int, descriptor: int | None = None) -> None:
        layout = _Layout(devices, lanes)
        self._lanes = lanes
        if descriptor is None:
            descriptor = os.memfd_create("fadelab-relay", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, layout.bytes)
        self.descriptor = descriptor
        memory = mmap.mmap(descriptor, layout.bytes)
        pipes = DIRECTIONS * devices
        wish_bytes = _WORD_BYTES * pipes * layout.wish_words
        count_bytes = _WORD_BYTES * pipes * layout.count_words
        self.wishes: FloatArray = np.frombuffer(
            memory, np.float64, pipes * layout.wish_words
        ).reshape(DIRECTIONS, devices, layout.wish_words)
        """What each pipe is to be."""
        self.resumed_s: FloatArray = np.frombuffer(
            memory, np.float64, devices, wish_bytes + count_bytes
        )
        """When the last uplink that reopened with data waiting brought its first packet."""
        self._counts: IntArray = np.frombuffer(
            memory, np.int64, pipes * layout.count_words, wish_bytes
        ).reshape(DIRECTIONS, devices, layout.count_words)
        words = memoryview(memory)[wish_bytes : wish_bytes + count_bytes].cast("q")
        self._rows = [
            words[start : start + layout.count_words]
            for start in range(0, len(words), layout.count_words)
        ]

    # -- the emulator's side -----------------------------------------------------------------------

    @property
    def is_open(self) -> FloatArray:
        """1 for open pipes, otherwise 0; shape ``(2, devices)``, to be written to."""
        return self.wishes[..., _OPEN]

    @property
    def delay_s(self) -> FloatArray:
        """Mean delay, shape ``(2, devices)``, to be written to."""
        return self.wishes[..., _DELAY]

    @property
    def jitter_s(self) -> FloatArray:
        """Standard deviation of the delay, shape ``(2, devices)``, to be written to."""
        return self.wishes[..., _JITTER]

    @property
    def lanes(self) -> FloatArray:
        """Rate in bit/s and the four loss probabilities; shape ``(2, devices, lanes, 5)``."""
        shape = (*self.wishes.shape[:2], self._lanes, _LANE_WISHES)
        return self.wishes[..., _FIRST_LANE:].reshape(shape)

    def read_lanes(self) -> LaneReading:
        """Return all lanes' counts."""
        shape = (*self._counts.shape[:2], self._lanes, _LANE_COUNTS)
        words = self._counts.reshape(shape).copy()
        return LaneReading(*np.moveaxis(words, -1, 0))

    def close(self) -> None:
        """Close the descriptor; the memory is given back with the last array."""
        os.close(self.descriptor)

    # -- the relay's side --------------------------------------------------------------------------

    def pipe_state(self, wishes: Sequence[float]) -> PipeState:
        """Return what one row of ``wishes`` means."""
        lanes = [
            wishes[start : start + _LANE_WISHES]
            for start in range(_FIRST_LANE, len(wishes), _LANE_WISHES)
        ]
        losses = tuple(LaneLoss(*lane[1:]) for lane in lanes)
        return PipeState(
            is_open=wishes[_OPEN] != 0,
            rates_bps=tuple(lane[0] for lane in lanes),
            port=PortState(losses, wishes[_DELAY], wishes[_JITTER]),
        )

    def publish(self, number: int, pipe: Pipe) -> None:
        """Write a pipe's counts; pipes are numbered through the uplinks, then the downlinks."""
        row = self._rows[number]
        at = 0
        for counts, backlog_bytes in zip(pipe.counts, pipe.backlogs_bytes, strict=True):
            row[at] = counts.sent_bytes
            row[at + 1] = counts.sent_packets
            row[at + 2] = counts.lost_packets
            row[at + 3] = counts.overflowed_packets
            row[at + 4] = backlog_bytes
            at += _LANE_COUNTS
