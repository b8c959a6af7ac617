"""When a message would be through if the link obeyed its timeline exactly.

The link sends whenever it is open, at its programmed layer-2 rate R(t), and holds what waits while
it is closed. A message of n bytes that is offered at t0 becomes frames of W bytes altogether, and
its last byte arrives at ``T + delay(T)`` with the least T for which the integral of R over
``[t0, T]`` is ``8 W`` bits.

Left out: handshakes, slow start and reactions to loss, the pause after a reopening until the first
packet moves, other traffic on the same lane, and acknowledgements, which use the other direction.
"""

import math
from dataclasses import dataclass

import numpy as np

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.timeline.link_track import LinkTrack


@dataclass(frozen=True, slots=True)
class Framing:
    """How a message is cut into frames.

    Raises:
        ValueError: no payload fits, or a negative header.

    """

    payload_bytes: int
    """Most payload of a frame."""
    header_bytes: int
    """Bytes of every frame that are no payload, Ethernet's 14 included, its checksum not."""

    def __post_init__(self) -> None:
        if self.payload_bytes < 1 or self.header_bytes < 0:
            raise ValueError(
                f"a frame of {self.payload_bytes} payload and {self.header_bytes} header bytes "
                "cannot be: at least 1 and 0 are needed"
            )

    def wire_bytes(self, message_bytes: FloatArray) -> FloatArray:
        """Return the layer-2 bytes of messages: full frames and, at the end, a shorter one."""
        frames = np.ceil(message_bytes / self.payload_bytes)
        wire_bytes: FloatArray = message_bytes + frames * self.header_bytes
        return wire_bytes


_TOLERANCE_BITS = 0.01

TCP = Framing(payload_bytes=1448, header_bytes=66)
"""Ethernet 14, IPv4 20, TCP 32 with its time stamps (RFC 7323), in an MTU of 1500."""
UDP = Framing(payload_bytes=1472, header_bytes=42)
"""Ethernet 14, IPv4 20, UDP 8, in an MTU of 1500."""


class FormulaTwin:
    """A link that obeys its track exactly.

    Args:
        track: the link's rates, delays and losses.
        resends: whether lost packets are sent again until they arrive, as TCP does. A packet then
            takes ``1 / (1 - p)`` transmissions on average where losses have mean p, so R(t) counts
            as ``R(t) (1 - p(t))``. Without, losses do not change when the last byte is through.

    """

    def __init__(self, track: LinkTrack, *, resends: bool = False) -> None:
        useful_bps = track.rate_bps * (1 - track.loss) if resends else track.rate_bps
        self._tick_s = track.tick_s
        self._delay_s = track.delay_s
        self._rate_bps = useful_bps
        self._bits = np.concatenate(([0.0], np.cumsum(useful_bps))) * track.tick_s

    def transfer_end_s(
        self, message_bytes: FloatArray, start_s: FloatArray, framing: Framing = TCP
    ) -> FloatArray:
        """Return when the last bytes of messages arrive, each alone on the link.

        Args:
            message_bytes: payload of each message, above 0, shape ``(messages,)``.
            start_s: emulated seconds at which each is offered, >= 0, same shape.
            framing: how messages become frames.

        Returns:
            Emulated seconds, shape ``(messages,)``; infinity where the track ends before.

        Raises:
            ValueError: a message without bytes, or a start before 0.

        """
        if np.any(message_bytes <= 0) or np.any(start_s < 0):
            raise ValueError("a message needs at least one byte and a start at 0 s or later")
        ticks = len(self._rate_bps)
        if not ticks:
            return np.full(np.shape(start_s), math.inf)
        before = np.interp(start_s / self._tick_s, np.arange(ticks + 1), self._bits)
        due_bits = before + 8 * framing.wire_bytes(np.asarray(message_bytes, dtype=np.float64))
        # Rounding must not carry a message that just fits into a window over to the next one.
        through = np.searchsorted(self._bits, due_bits - _TOLERANCE_BITS, side="left")
        tick = np.minimum(through, ticks) - 1
        in_tick_s = (due_bits - self._bits[tick]) / np.maximum(self._rate_bps[tick], 1e-9)
        end_s = tick * self._tick_s + in_tick_s + self._delay_s[tick]
        return np.where(through <= ticks, end_s, math.inf)


def transfer_end_s(
    reader: ScheduleReader,
    device: int,
    *,
    payload_bytes: float,
    start_s: float,
    uplink: bool = True,
    lane: int = 0,
    framing: Framing = TCP,
    resends: bool = False,
) -> float:
    """Return when one message over a recorded link is through; see :class:`FormulaTwin`.

    Build a :class:`FormulaTwin` for many messages over the same link.
    """
    track = LinkTrack.of_reader(reader, device, uplink=uplink, lane=lane)
    twin = FormulaTwin(track, resends=resends)
    return float(twin.transfer_end_s(np.array([payload_bytes]), np.array([start_s]), framing)[0])
