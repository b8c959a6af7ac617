"""How far a board's clocks are from this machine's, measured over the SSH connection.

Each sample sends a line and takes the board's time from the answer. The board's time is taken for
that of the middle between sending and receiving; the sample of the shortest round trip is off by no
more than half of it. This is the clock filter of NTP (RFC 5905, sections 8 and 10) with the
server's two time stamps being one.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fadelab.boards.facts import script_command
from fadelab.boards.ssh import Board, BoardError
from fadelab_proto.events import Value

_SAMPLES = 24
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer, in nanoseconds."""

    sent_ns: int
    """This machine's monotonic time."""
    received_ns: int
    board_mono_ns: int
    board_wall_ns: int
    wall_ns: int
    """This machine's Unix time at receiving."""


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """A board's clocks minus this machine's, at one moment."""

    at_mono_s: float
    """When, by this machine's monotonic clock."""
    offset_s: float
    """Of the monotonic clocks."""
    uncertainty_s: float
    wall_offset_s: float
    samples: int

    @classmethod
    def of_event(cls, event: Mapping[str, Value]) -> Self:
        """Return what an event tells of."""
        at, offset, uncertainty, wall = (
            float(str(event[key]))
            for key in ("at_mono_s", "offset_s", "uncertainty_s", "wall_offset_s")
        )
        return cls(at, offset, uncertainty, wall, int(str(event["samples"])))

    def as_event(self) -> dict[str, float | int]:
        """Return the fields of its event."""
        return {
            "at_mono_s": round(self.at_mono_s, 6),
            "offset_s": round(self.offset_s, 6),
            "uncertainty_s": round(self.uncertainty_s, 6),
            "wall_offset_s": round(self.wall_offset_s, 6),
            "samples": self.samples,
        }


def offset_of(exchanges: Sequence[Exchange]) -> ClockOffset:
    """Return the offset by the exchange that took the least time; there must be one."""
    best = min(exchanges, key=lambda one: one.received_ns - one.sent_ns)
    half_ns = (best.received_ns - best.sent_ns) / 2
    middle_ns = best.sent_ns + half_ns
    return ClockOffset(
        at_mono_s=middle_ns / 1e9,
        offset_s=(best.board_mono_ns - middle_ns) / 1e9,
        uncertainty_s=half_ns / 1e9,
        wall_offset_s=(best.board_wall_ns - (best.wall_ns - half_ns)) / 1e9,
        samples=len(exchanges),
    )


def offset_at(measured: Sequence[ClockOffset]) -> Callable[[float], float]:
    """Return the offset as a function of this machine's monotonic second.

    Between the first and the last measurement it is a straight line, as clocks drift; elsewhere it
    is that of the nearest.
    """
    first, last = measured[0], measured[-1]
    span_s = last.at_mono_s - first.at_mono_s

    def at(mono_s: float) -> float:
        share = 0.0 if span_s <= 0 else (mono_s - first.at_mono_s) / span_s
        return first.offset_s + min(1.0, max(0.0, share)) * (last.offset_s - first.offset_s)

    return at


async def measure_offset(board: Board) -> ClockOffset:
    """Ask a board for its time, several times. Raises BoardError."""
    process = await board.start(script_command(board, "clock"))
    assert process.stdin is not None
    assert process.stdout is not None
    exchanges: list[Exchange] = []
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for _ in range(_SAMPLES):
                sent_ns = time.monotonic_ns()
                process.stdin.write(b"\n")
                answer = await process.stdout.readline()
                received_ns, wall_ns = time.monotonic_ns(), time.time_ns()
                mono, wall = answer.split()
                exchanges.append(Exchange(sent_ns, received_ns, int(mono), int(wall), wall_ns))
            process.stdin.close()
            await process.wait()
    except (TimeoutError, ValueError, ConnectionError):
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise BoardError(f"the board {board.name} does not tell its time") from None
    return offset_of(exchanges)
