"""Mahimahi packet-delivery traces, in and out.

A trace (R. Netravali et al., "Mahimahi: Accurate Record-and-Replay for HTTP", USENIX ATC 2015;
src/frontend/link_queue.cc of github.com/ravinet/mahimahi) has one whole number of milliseconds per
line, in an order that does not decrease: each is an opportunity to deliver up to 1504 bytes, which
are 4 bytes of TUN header and an IP packet of up to 1500. After its last line the trace repeats,
beginning at that line's time.

One opportunity is counted here as one full Ethernet frame of 1514 bytes: the same IP packet with
Ethernet's header of 14 bytes, as everywhere in Fadelab. So the number of full packets per second
is kept; smaller packets cost 10 bytes more each than in Mahimahi.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fadelab_emulation.link_state import FloatArray, IntArray, LinkTick
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_emulation.timeline.link_source import LinkTerms, TraceTicks, refuse_power
from fadelab_emulation.timeline.link_track import LinkTrack
from fadelab_emulation.timeline.trace_file import read_trace
from fadelab_proto.config import StrictModel
from fadelab_proto.seeds import Stream, generator

OPPORTUNITY_BITS = 8 * 1514
"""Layer-2 bits of the full frame that stands for an opportunity."""

_LONGEST_MS = 10**9
_MOST_PACKETS = 10**7
_NEWLINE, _ZERO, _NINE = b"\n09"
# What rounding may take away: recorded rates are float32, times are multiples of a tick's length.
_ROUNDING_BITS = 0.01 * OPPORTUNITY_BITS
_ROUNDING_MS = 1e-3


@dataclass(frozen=True, slots=True)
class MahimahiTrace:
    """Opportunities to deliver a packet, repeated with a period."""

    opportunity_ms: IntArray
    """Not decreasing, from 0 to the period, shape ``(opportunities,)``."""

    @property
    def period_ms(self) -> int:
        """The last opportunity's time, at which the trace begins anew."""
        return int(self.opportunity_ms[-1])

    def before(self, t_ms: FloatArray) -> IntArray:
        """Return how many opportunities there are from 0 up to, but not at, the times given."""
        rounds, rest_ms = np.divmod(t_ms, self.period_ms)
        passed = rounds.astype(np.int64) * len(self.opportunity_ms)
        # Those at the period's end belong to the moment at which the next round begins.
        at_end = len(self.opportunity_ms) - int(
            np.searchsorted(self.opportunity_ms, self.period_ms)
        )
        passed -= np.where((rest_ms == 0) & (rounds > 0), at_end, 0)
        # Whole numbers are looked up among whole numbers: a search for others copies the trace.
        first_not_ms = np.ceil(rest_ms).astype(np.int64)
        found: IntArray = passed + np.searchsorted(self.opportunity_ms, first_not_ms, side="left")
        return found


def load_mahimahi(path: Path) -> MahimahiTrace:
    """Read a trace.

    Raises:
        ValueError: the file cannot be read, or the line that is named is none of a trace.

    """
    content = read_trace(path)
    text = np.frombuffer(content if content.endswith(b"\n") else content + b"\n", dtype=np.uint8)
    _check_characters(path, text)
    opportunity_ms = np.fromstring(text.tobytes(), dtype=np.int64, sep=" ")
    falls = np.flatnonzero(np.diff(opportunity_ms) < 0)
    if falls.size:
        line = int(falls[0]) + 1
        raise ValueError(
            f"{path}, line {line + 1}: {opportunity_ms[line]} ms follows "
            f"{opportunity_ms[line - 1]} ms, but a trace's times must not decrease"
        )
    if opportunity_ms[-1] > _LONGEST_MS:
        raise ValueError(
            f"{path}, line {np.searchsorted(opportunity_ms, _LONGEST_MS, side='right') + 1}: "
            f"a trace may last {_LONGEST_MS} ms, not {opportunity_ms[-1]} ms"
        )
    if opportunity_ms[-1] == 0:
        raise ValueError(f"{path}, line {len(opportunity_ms)}: a trace must last longer than 0 ms")
    return MahimahiTrace(opportunity_ms)


def _check_characters(path: Path, text: NDArray[np.uint8]) -> None:
    """Refuse everything but lines of one to ten digits; tens of megabytes take a moment."""
    ends = np.flatnonzero(text == _NEWLINE)
    lengths = np.diff(ends, prepend=-1) - 1
    strange = np.flatnonzero((text != _NEWLINE) & ((text < _ZERO) | (text > _NINE)))
    wrong = [
        np.flatnonzero((lengths == 0) | (lengths > 10))[:1],
        np.searchsorted(ends, strange[:1]),
    ]
    lines = np.concatenate(wrong)
    if lines.size:
        line = int(lines.min())
        start = int(ends[line] - lengths[line])
        shown = text[start : min(int(ends[line]), start + 20)].tobytes()
        raise ValueError(
            f"{path}, line {line + 1}: {shown.decode('latin-1')!r} is no whole number of "
            f"milliseconds from 0 to {_LONGEST_MS}"
        )


def write_mahimahi(trace: MahimahiTrace, path: Path) -> None:
    """Write a trace; FileExistsError where the file exists."""
    with path.open("x", encoding="ascii") as file:
        file.writelines(f"{ms}\n" for ms in trace.opportunity_ms.tolist())


def trace_of(track: LinkTrack) -> MahimahiTrace:
    """Return the trace of a recorded link's direction, every packet where it would be through.

    A packet stands at the millisecond in which its last bit is sent, if all packets are full and
    the link is never idle; what is left of a packet when the link closes goes on when it reopens.
    So every second has the packets that its bits make, give or take one. One more opportunity
    stands at the end of the recording, so that the trace repeats after as long.

    Raises:
        ValueError: the link carries no packet, or the recording is too long for a trace.

    """
    edges_ms = 1e3 * track.tick_s * np.arange(len(track.rate_bps) + 1)
    bits = np.concatenate(([0.0], np.cumsum(track.rate_bps))) * track.tick_s
    packets = int((bits[-1] + _ROUNDING_BITS / 2) / OPPORTUNITY_BITS)
    if packets == 0:
        raise ValueError("the link carries no whole packet, and a trace cannot be without one")
    end_ms = round(edges_ms[-1])
    if end_ms > _LONGEST_MS or packets > _MOST_PACKETS:
        raise ValueError(
            f"a trace may have {_LONGEST_MS} ms and {_MOST_PACKETS} packets, not {end_ms} ms and "
            f"{packets} packets"
        )
    due_bits = OPPORTUNITY_BITS * np.arange(1, packets + 1)
    tick = np.searchsorted(bits, due_bits - _ROUNDING_BITS, side="left")
    done = np.minimum((due_bits - bits[tick - 1]) / (bits[tick] - bits[tick - 1]), 1.0)
    through_ms = edges_ms[tick - 1] + done * (edges_ms[tick] - edges_ms[tick - 1])
    in_ms = np.ceil(through_ms - _ROUNDING_MS).astype(np.int64) - 1
    return MahimahiTrace(np.append(np.clip(in_ms, 0, end_ms - 1), end_ms))


class TraceStart(StrEnum):
    """Where in a trace each device begins."""

    TOGETHER = "together"
    """All at its beginning: every device has the same link."""
    STAGGERED = "staggered"
    """Each at a moment of its own, drawn by the seed, the same for both directions."""


class MahimahiConfig(StrictModel):
    """Two Mahimahi traces instead of the radio models."""

    kind: Literal["mahimahi"] = "mahimahi"
    up: Path = Field(description="Trace of the uplink.")
    down: Path = Field(description="Trace of the downlink.")
    start: TraceStart = Field(
        default=TraceStart.TOGETHER,
        description="Whether all devices begin the traces together or staggered at random.",
    )

    def build(self, terms: LinkTerms) -> "MahimahiLinks":
        """Return the timeline; ValueError where a trace cannot be read."""
        up, down = load_mahimahi(self.up), load_mahimahi(self.down)
        offset_ms: FloatArray = np.zeros(terms.devices)
        if self.start is TraceStart.STAGGERED:
            longest_ms = max(up.period_ms, down.period_ms)
            for device in range(terms.devices):
                draw = generator(terms.seed, Stream.CHANNEL, ChannelDraw.TRACE, device)
                offset_ms[device] = draw.integers(longest_ms)
        return MahimahiLinks(terms, up, down, offset_ms)


class MahimahiLinks:
    """Links that follow a pair of traces.

    In a tick a direction has the rate at which the trace's opportunities of that tick are used up:
    their number times 1514 bytes over the tick's length. A tick without any in either direction is
    closed. A direction that has none while the other has some gets the least rate that a link can
    have, :data:`fadelab_emulation.rate.base.MIN_RATE_BPS`; so does one whose opportunities are
    fewer, which with ticks up to 0.18 s never happens.
    """

    def __init__(
        self, terms: LinkTerms, up: MahimahiTrace, down: MahimahiTrace, offset_ms: FloatArray
    ) -> None:
        """Begin the traces at ``offset_ms``, shape ``(devices,)``."""
        self._ticks = TraceTicks(terms)
        self._tick_s = terms.tick_s
        self._up = up
        self._down = down
        self._offset_ms = offset_ms
        self._index = 0

    def step(self) -> LinkTick:
        """Return the next tick."""
        index = self._index
        self._index += 1
        return self._ticks.tick(
            index, self._rate_bps(self._up, index), self._rate_bps(self._down, index)
        )

    def _rate_bps(self, trace: MahimahiTrace, index: int) -> FloatArray:
        opportunities = trace.before(self._edge_ms(index + 1)) - trace.before(self._edge_ms(index))
        return opportunities.astype(np.float64) * (OPPORTUNITY_BITS / self._tick_s)

    def _edge_ms(self, index: int) -> FloatArray:
        # Whole microseconds: a product of a tick's length may lie a little beside its millisecond.
        return self._offset_ms + round(index * self._tick_s * 1e6) / 1e3

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Raise ValueError: a trace cannot be changed by a power."""
        refuse_power(device, power_w, "a Mahimahi trace")
