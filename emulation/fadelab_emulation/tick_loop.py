"""Carrying the timeline out: one thread that steps the radio world and drives the links on time."""

import os
import selectors
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from fadelab_emulation.backends.base import LinkBackend, LinkCounters, Resume
from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss
from fadelab_emulation.schedule import ScheduleWriter
from fadelab_emulation.world import RadioWorld
from fadelab_emulation.write_behind import WriteBehind
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog, Value

# Reading every interface costs about 10 us for each link: once a second leaves the ticks alone.
_COUNTERS_EVERY_S = 1.0


@dataclass(slots=True)
class Lateness:
    """How late ticks were carried out, in seconds; one entry for each tick."""

    seconds: list[float] = field(default_factory=list)

    def percentile_ms(self, share: float) -> float:
        """Return a percentile in milliseconds; 0 before the first tick."""
        if not self.seconds:
            return 0.0
        return 1e3 * float(np.percentile(self.seconds, share))


class TickLoop:
    """Own the world and the back-end; everything here happens in :meth:`run`'s thread.

    Args:
        on_tick: called with every tick once it is in force.
        on_counters: called about once a second, and at the end, with what the links carried.

    """

    def __init__(
        self,
        world: RadioWorld,
        backend: LinkBackend,
        schedule: ScheduleWriter,
        *,
        tick_s: float,
        clock: Clock,
        log: EventLog,
        on_tick: Callable[[LinkTick], None],
        on_counters: Callable[[LinkCounters], None],
    ) -> None:
        self._world = world
        self._backend = backend
        self._schedule = schedule
        self._tick_s = tick_s
        self._clock = clock
        self._log = log
        self._on_tick = on_tick
        self._on_counters = on_counters
        self._lock = threading.Lock()
        self._powers: dict[int, float] = {}
        self._start_s: float | None = None
        self._stopping = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._was_open = np.zeros(0, dtype=np.bool_)
        self._counters_due_s = 0.0
        self._behind = WriteBehind()
        self.lateness = Lateness()

    # -- called from other threads ---------------------------------------------------------------

    def begin(self, start_mono_s: float) -> None:
        """Start the timeline; a second call changes nothing."""
        with self._lock:
            if self._start_s is None:
                self._start_s = start_mono_s
                self._log.set_start(start_mono_s)
        os.write(self._wake_writer, b"b")

    def request_power(self, device: int, power_w: float) -> None:
        """Change a device's transmit power from the next computed tick on."""
        with self._lock:
            self._powers[device] = power_w

    def stop(self) -> None:
        """End :meth:`run`."""
        self._stopping.set()
        os.write(self._wake_writer, b"s")

    # -- the thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep all links open until :meth:`begin`, then follow the world until :meth:`stop`."""
        with self._behind, selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.register(self._backend.resume_fileno(), selectors.EVENT_READ)
            tick = self._next_tick()
            self._backend.apply(staging_tick(tick))
            self._wait(selector, until_s=None)
            while not self._stopping.is_set():
                assert self._start_s is not None
                deadline_s = self._start_s + tick.t_s
                self._wait(selector, until_s=deadline_s)
                if self._stopping.is_set():
                    break
                self.lateness.seconds.append(self._clock.now_s() - deadline_s)
                self._carry_out(tick)
                tick = self._next_tick()
            self._report_resumes()
            self._count()

    def _wait(self, selector: selectors.BaseSelector, until_s: float | None) -> None:
        """Serve guards and resumptions until ``until_s``, or until begin() if it is None."""
        while not self._stopping.is_set():
            now = self._clock.now_s()
            guard_s = self._backend.next_guard_s()
            if guard_s is not None and guard_s <= now:
                self._backend.check_guards()
                continue
            if until_s is None and self._start_s is not None:
                return
            if until_s is not None and now >= until_s:
                return
            due = [s for s in (guard_s, until_s) if s is not None]
            timeout = max(0.0, min(due) - now) if due else None
            for key, _ in selector.select(timeout):
                if key.fd == self._wake_reader:
                    os.read(self._wake_reader, 64)
                else:
                    self._report_resumes()

    def _next_tick(self) -> LinkTick:
        with self._lock:
            powers, self._powers = self._powers, {}
        for device, power_w in powers.items():
            self._world.set_uplink_power(device, power_w)
        return self._world.step()

    def _carry_out(self, tick: LinkTick) -> None:
        self._backend.apply(tick)
        applied_s = self._clock.now_s()
        record = self._schedule.encode(tick)
        self._behind.submit(lambda: self._schedule.append(record))
        self._backend.sample()
        self._log_contacts(tick, applied_s)
        self._on_tick(tick)
        if applied_s >= self._counters_due_s:
            self._counters_due_s = applied_s + _COUNTERS_EVERY_S
            self._count()

    def _note(self, event: str, **fields: Value) -> None:
        self._behind.submit(lambda: self._log.write(event, **fields))

    def _count(self) -> None:
        counters = self._backend.counters()
        self._note(
            "wire",
            counted_mono_s=round(self._clock.now_s(), 6),
            up_bytes=int(counters.up.wire_bytes.sum()),
            down_bytes=int(counters.down.wire_bytes.sum()),
        )
        self._on_counters(counters)

    def _log_contacts(self, tick: LinkTick, applied_s: float) -> None:
        changed = tick.is_open if tick.index == 0 else tick.is_open != self._was_open
        for device in np.flatnonzero(changed).tolist():
            self._note(
                "contact_opened" if tick.is_open[device] else "contact_closed",
                device=device,
                tick=tick.index,
                planned_t_s=round(tick.t_s, 6),
                applied_mono_s=round(applied_s, 6),
            )
        self._was_open = tick.is_open

    def _report_resumes(self) -> None:
        for resume in self._backend.drain_resumes():
            self._log_resume(resume)

    def _log_resume(self, resume: Resume) -> None:
        self._note(
            "resumed",
            device=resume.device,
            opened_mono_s=round(resume.opened_s, 6),
            resume_s=round(resume.resume_s, 6),
        )


# Before the run starts, devices join over open links. The rate only has to be quick enough.
_STAGING_RATE_BPS = 20e6


def staging_tick(first: LinkTick) -> LinkTick:
    """Return a tick in which every link is open, at 20 Mbit/s or more and without loss."""
    shares = [
        np.maximum(1.0, _STAGING_RATE_BPS / rate_bps)
        for rate_bps in (first.rate_up_bps, first.rate_down_bps)
    ]
    none = PacketLoss.independent(np.zeros(first.devices))
    up, down = (
        tuple(Lane(lane.rate_bps * factor, none) for lane in lanes)
        for lanes, factor in zip((first.up, first.down), shares, strict=True)
    )
    return replace(first, up=up, down=down, is_open=np.ones(first.devices, dtype=np.bool_))
