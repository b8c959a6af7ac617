"""How far two machines' monotonic clocks are apart, by messages there and back."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fadelab_proto import cluster_pb2 as pb
from fadelab_proto import cluster_pb2_grpc as pb_grpc

_EXCHANGES = 16


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer, in seconds of the monotonic clocks."""

    asked_s: float
    answered_s: float
    """By the clock of who asked."""
    there_s: float
    """What the other clock showed in between."""


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The other clock minus one's own."""

    offset_s: float
    error_s: float
    """How far from the truth that can be: half of the shortest time there and back."""


def offset_of(exchanges: Sequence[Exchange]) -> ClockOffset:
    """Return the offset by the quickest exchange, of which there must be one.

    The other clock was read somewhere between question and answer; taking the middle errs by half
    the time between at most (Cristian, "Probabilistic clock synchronization", 1989).
    """
    best = min(exchanges, key=lambda one: one.answered_s - one.asked_s)
    middle_s = (best.asked_s + best.answered_s) / 2
    return ClockOffset(best.there_s - middle_s, (best.answered_s - best.asked_s) / 2)


async def measure(
    stub: "pb_grpc.ConductorAsyncStub", now_s: Callable[[], float] = time.monotonic
) -> ClockOffset:
    """Return how far the conductor's clock is ahead of this machine's; waits for the conductor."""
    await stub.ReadClock(pb.ReadClockRequest(), wait_for_ready=True)
    exchanges = []
    for _ in range(_EXCHANGES):
        asked_s = now_s()
        there = await stub.ReadClock(pb.ReadClockRequest())
        exchanges.append(Exchange(asked_s, now_s(), there.mono_s))
    return offset_of(exchanges)
