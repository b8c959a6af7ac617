"""Carrying the timeline out: one thread that steps its source and drives the links on time."""

import math
import os
import queue
import selectors
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from fadelab_emulation.achieved import AchievedWriter, encode_sample
from fadelab_emulation.backends.base import LinkBackend, LinkCounters, Resume
from fadelab_emulation.delay_watch import DelayWatch
from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss
from fadelab_emulation.schedule import ScheduleWriter
from fadelab_emulation.timeline.link_source import LinkSource
from fadelab_emulation.timeline.time_scale import REAL_TIME, Timescale
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


@dataclass(frozen=True, slots=True)
class Change:
    """What a source is to do otherwise, and who hears when it does."""

    make: Callable[[], None]
    in_force: Callable[[], None]


class TickLoop:
    """Own the source and the back-end; everything here happens in :meth:`run`'s thread.

    Args:
        source: the radio world, a replay or an imported trace.
        backend: gets every tick as the wall clock needs it, scaled.
        schedule: gets every tick in emulated seconds, as do the two callbacks.
        achieved: gets what the links have done so far, at every tick.
        clock: the wall clock.
        log: where contacts, resumptions and bytes on the wire are noted.
        timescale: how many emulated seconds pass in one of the wall clock.
        on_tick: called with every tick once it is in force.
        on_counters: called about once a second, and at the end, with what the links carried.
        on_powers: called after ``on_tick`` with the powers, by device, that this tick is the first
            to have.
        delay_watch: times delays, where any are programmed.
        until_s: emulated second at which the timeline ends by itself.

    """

    def __init__(
        self,
        source: LinkSource,
        backend: LinkBackend,
        schedule: ScheduleWriter,
        achieved: AchievedWriter,
        *,
        clock: Clock,
        log: EventLog,
        on_tick: Callable[[LinkTick], None],
        on_counters: Callable[[LinkCounters], None],
        on_powers: Callable[[dict[int, float]], None] = lambda _: None,
        timescale: Timescale = REAL_TIME,
        delay_watch: DelayWatch | None = None,
        until_s: float | None = None,
    ) -> None:
        self._source = source
        self._backend = backend
        self._schedule = schedule
        self._achieved = achieved
        self._delay_watch = delay_watch
        self._until_s = math.inf if until_s is None else until_s
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._timescale = timescale
        self._clock = clock
        self._log = log
        self._on_tick = on_tick
        self._on_counters = on_counters
        self._on_powers = on_powers
        self._lock = threading.Lock()
        self._powers: dict[int, float] = {}
        self._new_powers: dict[int, float] = {}  # of the next tick
        self._changes: list[Change] = []
        self._new_changes: list[Change] = []  # of the next tick
        self._start_s: float | None = None
        self._in_force: LinkTick | None = None
        self._stopping = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._was_open = np.zeros(0, dtype=np.bool_)
        self._counters_due_s = 0.0
        self._before: LinkCounters | None = None
        self._behind = WriteBehind()
        self.lateness = Lateness()

    # -- called from other threads ---------------------------------------------------------------

    def begin(self, start_mono_s: float) -> None:
        """Start the timeline; a second call changes nothing."""
        with self._lock:
            if self._start_s is None:
                self._start_s = start_mono_s
                self._log.set_start(self._timescale.emulated_s(start_mono_s))
        os.write(self._wake_writer, b"b")

    def request_power(self, device: int, power_w: float) -> None:
        """Change a device's transmit power from the next computed tick on.

        Where the source refuses, a ``power_refused`` event says why.
        """
        self.request_powers({device: power_w})

    def request_powers(self, powers_w: dict[int, float]) -> None:
        """Change several devices' powers, all in the same tick."""
        with self._lock:
            self._powers.update(powers_w)

    def request_change(self, change: Callable[[], None], in_force: Callable[[], None]) -> None:
        """Have the source changed before it computes the next tick.

        Args:
            change: changes the source; called in the loop's thread.
            in_force: called there too, when that tick has been carried out.

        """
        with self._lock:
            self._changes.append(Change(change, in_force))

    def call(self, action: Callable[[], None]) -> None:
        """Have ``action`` carried out in the loop's thread, to which the back-end belongs."""
        self._actions.put(action)
        os.write(self._wake_writer, b"c")

    def stop(self) -> None:
        """End :meth:`run`."""
        self._stopping.set()
        os.write(self._wake_writer, b"s")

    # -- the thread ------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep all links open until :meth:`begin`, then follow the source to the end.

        The end is where :meth:`stop` is called, or ``until_s``.
        """
        with self._behind, selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.register(self._backend.resume_fileno(), selectors.EVENT_READ)
            # What measured the links beforehand is not the run's.
            self._before = self._backend.counters()
            tick = self._next_tick()
            self._put_in_force(staging_tick(self._timescale.scaled(tick)))
            self._wait(selector, until_s=None)
            while not self._stopping.is_set():
                assert self._start_s is not None
                deadline_s = self._start_s + self._timescale.wall_s(tick.t_s)
                self._wait(selector, until_s=deadline_s)
                if self._stopping.is_set() or tick.t_s >= self._until_s:
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
                    self._act()
                else:
                    self._report_resumes()

    def _act(self) -> None:
        while not self._actions.empty():
            self._actions.get()()
            # A link that was made anew is closed, and before the start no tick comes to open it.
            if self._in_force is not None:
                self._backend.apply(self._in_force)

    def _put_in_force(self, scaled: LinkTick) -> None:
        self._in_force = scaled
        self._backend.apply(scaled)

    def _next_tick(self) -> LinkTick:
        with self._lock:
            powers, self._powers = self._powers, {}
            self._new_changes, self._changes = self._changes, []
        for change in self._new_changes:
            change.make()
        self._new_powers = {}
        for device, power_w in powers.items():
            try:
                self._source.set_uplink_power(device, power_w)
                self._new_powers[device] = power_w
            except ValueError as error:
                # A wish that cannot be granted must not end the timeline.
                self._note("power_refused", device=device, power_w=power_w, reason=str(error))
        return self._source.step()

    def _carry_out(self, tick: LinkTick) -> None:
        scaled = self._timescale.scaled(tick)
        self._put_in_force(scaled)
        applied_s = self._clock.now_s()
        record = self._schedule.encode(tick)
        self._behind.submit(lambda: self._schedule.append(record))
        self._look(scaled)
        self._log_contacts(tick, applied_s)
        self._on_tick(tick)
        if self._new_powers:
            for device, power_w in self._new_powers.items():
                self._note("power_in_force", tick=tick.index, device=device, power_w=power_w)
            self._on_powers(self._new_powers)
        for change in self._new_changes:
            change.in_force()
        if applied_s >= self._counters_due_s:
            self._counters_due_s = applied_s + _COUNTERS_EVERY_S
            self._count()

    def _look(self, scaled: LinkTick) -> None:
        """Read what the links have done, and how long probes took."""
        sample, now_s = self._backend.sample(), self._clock.now_s()
        record = encode_sample(scaled.index, self._timescale.emulated_s(now_s), sample)
        self._behind.submit(lambda: self._achieved.append(record))
        if self._delay_watch is not None:
            for timed in self._delay_watch.after_tick(scaled, sample, now_s):
                self._note("delay_probe", **asdict(timed))

    def _note(self, event: str, **fields: Value) -> None:
        self._behind.submit(lambda: self._log.write(event, **fields))

    def _count(self) -> None:
        assert self._before is not None
        counters = self._backend.counters().wire_since(self._before)
        self._note(
            "wire",
            counted_mono_s=round(self._timescale.emulated_s(self._clock.now_s()), 6),
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
                applied_mono_s=round(self._timescale.emulated_s(applied_s), 6),
            )
        self._was_open = tick.is_open

    def _report_resumes(self) -> None:
        for resume in self._backend.drain_resumes():
            self._log_resume(resume)

    def _log_resume(self, resume: Resume) -> None:
        self._note(
            "resumed",
            device=resume.device,
            opened_mono_s=round(self._timescale.emulated_s(resume.opened_s), 6),
            resume_s=round(resume.resume_s, 6),
        )


# Before the run starts, devices join over open links. The rate only has to be quick enough.
_STAGING_RATE_BPS = 20e6


def staging_tick(first: LinkTick) -> LinkTick:
    """Return a tick in which every link is open, at 20 Mbit/s or more and without loss."""
    shares = [
        np.maximum(1.0, _STAGING_RATE_BPS / np.maximum(1.0, rate_bps))
        for rate_bps in (first.rate_up_bps, first.rate_down_bps)
    ]
    none = PacketLoss.independent(np.zeros(first.devices))
    up, down = (
        tuple(Lane(lane.rate_bps * factor, none) for lane in lanes)
        for lanes, factor in zip((first.up, first.down), shares, strict=True)
    )
    return replace(first, up=up, down=down, is_open=np.ones(first.devices, dtype=np.bool_))
