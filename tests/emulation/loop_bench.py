"""A tick loop on a bench: a back-end that only notes what it is told, and time that it turns on."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fadelab_emulation.achieved import AchievedWriter
from fadelab_emulation.backends.base import (
    DirectionCounters,
    DirectionSample,
    LinkCounters,
    LinkSample,
    Resume,
)
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import LinkTick
from fadelab_emulation.schedule import ScheduleWriter
from fadelab_emulation.tick_loop import TickLoop
from fadelab_emulation.timeline.link_source import LinkSource
from fadelab_emulation.timeline.time_scale import REAL_TIME, Timescale
from fadelab_emulation.world import RadioWorld
from fadelab_proto.events import EventLog, read_events

TICK_S = 0.1
STEP_S = 0.004
"""How far time goes on whenever the loop waits."""
RADIO: dict[str, Any] = {
    "tick_s": TICK_S,
    "area_m": [600, 600],
    "mobility": {"kind": "random_waypoint", "speed_mps": [20, 30], "pause_s": [0, 0]},
    "rate": {"kind": "shannon", "bandwidth_hz": 2e5, "noise_figure_db": 9},
    "contact": {"kind": "coverage", "radius_m": 140, "hysteresis_m": 5},
    "uplink_power_w": 0.2,
}


class TurnedClock:
    """Time that goes on while the loop waits and at no other moment."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def now_s(self) -> float:
        return self.time_s

    async def sleep_until(self, when_s: float) -> None:
        raise AssertionError("the loop waits for its descriptors, not for the clock")


class NotingBackend:
    """Carries nothing out; the descriptor that is always readable lets no wait last."""

    name = "noting"
    server_address = "10.77.0.1"
    namespaces = ()
    settings = ()

    def __init__(self, clock: TurnedClock, devices: int) -> None:
        self.clock = clock
        self.devices = devices
        self.applied: list[tuple[float, LinkTick]] = []
        self.samples = 0
        self.guard_due_s: float | None = None
        self.guards_checked_s: list[float] = []
        self.resumes: list[Resume] = []
        self.before_waiting: Callable[[], None] = lambda: None
        self._readable = os.eventfd(1)

    def apply(self, tick: LinkTick) -> None:
        self.applied.append((self.clock.time_s, tick))

    def sample(self) -> LinkSample:
        self.samples += 1
        devices = np.arange(self.devices)
        counts = DirectionSample(*(devices + self.samples for _ in range(5)))
        return LinkSample(devices, counts, counts)

    def next_guard_s(self) -> float | None:
        return self.guard_due_s

    def check_guards(self) -> None:
        self.guards_checked_s.append(self.clock.time_s)
        self.guard_due_s = None

    def resume_fileno(self) -> int:
        return self._readable

    def drain_resumes(self) -> list[Resume]:
        self.before_waiting()
        self.clock.time_s += STEP_S
        found, self.resumes = self.resumes, []
        return found

    def counters(self) -> LinkCounters:
        def direction(wire: int) -> DirectionCounters:
            zeros = np.zeros(self.devices, dtype=np.int64)
            return DirectionCounters(
                wire_bytes=zeros + wire,
                wire_packets=zeros,
                programmed_bytes=np.zeros(self.devices),
                achieved_bytes=zeros,
                stretches=zeros,
                leaked_packets=zeros,
                arrived_packets=zeros,
                lost_packets=zeros,
                expected_losses=np.zeros(self.devices),
            )

        return LinkCounters(up=direction(len(self.applied)), down=direction(0))

    def close(self) -> None:
        os.close(self._readable)


class Bench:
    """A loop with everything around it."""

    def __init__(
        self,
        folder: Path,
        devices: int,
        source: LinkSource | None = None,
        timescale: Timescale = REAL_TIME,
        **radio: Any,
    ) -> None:
        self.folder = folder
        self.devices = devices
        self.config = RadioConfig.model_validate(RADIO | radio)
        self.clock = TurnedClock()
        self.backend = NotingBackend(self.clock, devices)
        self.schedule = ScheduleWriter(folder / "links.schedule", devices, TICK_S, 1)
        self.achieved = AchievedWriter(folder / "links.achieved")
        self.log = EventLog(folder / "events", "emulator", "0", self.clock)
        self.ticks: list[LinkTick] = []
        self.counters: list[LinkCounters] = []
        self.powers: list[tuple[int, dict[int, float]]] = []
        """With how many ticks were in force by then."""
        self.stop_at: int | None = None
        self.loop = TickLoop(
            source or RadioWorld(self.config, devices, 1),
            self.backend,
            self.schedule,
            self.achieved,
            clock=self.clock,
            log=self.log,
            on_tick=self._note,
            on_counters=self.counters.append,
            on_powers=lambda powers: self.powers.append((len(self.ticks), powers)),
            timescale=timescale,
        )

    def run(self, ticks: int) -> None:
        """Run until so many ticks are carried out."""
        self.stop_at = ticks
        self.loop.run()
        self.close()

    def close(self) -> None:
        self.schedule.close()
        self.achieved.close()
        self.log.close()

    def events(self, *names: str) -> list[dict[str, Any]]:
        found = read_events(self.folder / "events" / "emulator-0.jsonl")
        return [event for event in found if event["event"] in names]

    def _note(self, tick: LinkTick) -> None:
        self.ticks.append(tick)
        if len(self.ticks) == self.stop_at:
            self.loop.stop()


@contextmanager
def bench(folder: Path, devices: int = 5, **given: Any) -> Iterator[Bench]:
    made = Bench(folder, devices, **given)
    try:
        yield made
    finally:
        made.close()
        made.backend.close()
