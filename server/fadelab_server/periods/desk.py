"""Who receives and who uploads now: the first level of the horizon, in a run.

Each device's local period of a task is a seat at this desk, from its request to the aggregation that
it makes. Whoever asks waits for an answer; answers come when something changes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog, Value
from fadelab_server.aggregation.dma_fl import DmaFl
from fadelab_server.model_store import Version
from fadelab_server.periods.figures import Figures
from fadelab_server.periods.knowledge import TaskKnowledge
from fadelab_server.periods.planner import Planner
from fadelab_server.periods.reproduction import digest
from fadelab_server.scheduler.config import SchedulingConfig
from fadelab_server.scheduler.dispatch import Holder, Waiting, next_receivers, next_uploader
from fadelab_server.scheduler.event_log import Uploaded
from fadelab_server.scheduler.horizon import PlannedPeriod
from fadelab_server.scheduler.log_lines import ABANDONED, RECEIVED, UPLOADED
from fadelab_server.task_state import TaskState

_BETWEEN_BOUNDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """A device's period begins: the version to download, and what to do with it."""

    version: int
    planned: PlannedPeriod


@dataclass(frozen=True, slots=True)
class Refusal:
    """A device is not to go on."""

    reason: str
    rests: bool = False
    """Whether that is so for the rest of the run."""


@dataclass(slots=True, eq=False)
class _Seat:
    """One local period of one device and task."""

    update_id: int
    planned: PlannedPeriod
    idle_until_s: float
    begun: "asyncio.Future[Start | Refusal]"
    turn: "asyncio.Future[Refusal | None]"
    version: int | None = None
    """g, once it was received."""
    ready: bool = False
    """Whether training is over."""

    @property
    def uploads(self) -> bool:
        """Whether the device was told to upload."""
        return self.turn.done()

    def refuse(self, refusal: Refusal) -> None:
        """Answer whatever is still waited for."""
        if not self.begun.done():
            self.begun.set_result(refusal)
        if not self.turn.done():
            self.turn.set_result(refusal)


class PeriodDesk:
    """The local periods of all tasks.

    Args:
        config: how to schedule.
        tasks: the server's, in its order.
        clock: of the run.
        log: gets R, U and the plans.
        mixing: alpha of an update without delay.
        attend: has work done beside everything else until the run stops.
        excused: called when a device rests for good, so that nobody waits for it.

    """

    def __init__(
        self,
        config: SchedulingConfig,
        tasks: Sequence[TaskState],
        *,
        mixing: float,
        clock: Clock,
        log: EventLog,
        attend: Callable[[Coroutine[None, None, None]], None],
        excused: Callable[[], None],
    ) -> None:
        self._config = config
        self._tasks = tasks
        self._clock = clock
        self._log = log
        self._attend = attend
        self._excused = excused
        self._resting: list[set[int]] = [set() for _ in tasks]
        self._known = [
            TaskKnowledge(
                devices=len(config.capacitance_j_s2),
                dimension=task.spec.dimension,
                learning_rate=own.learning_rate,
                proximal=own.proximal,
            )
            for task, own in zip(tasks, config.tasks, strict=True)
        ]
        self.planner = Planner(config, self._known, mixing=mixing)
        self._seats: list[dict[int, _Seat]] = [{} for _ in tasks]
        self._trained: dict[tuple[int, int], int] = {}
        """By task and device, the version that was trained from last; for rounds."""
        self._bound_due_s = [0.0 for _ in tasks]
        self._made: list[deque[tuple[Uploaded, str]]] = [deque() for _ in tasks]
        """Aggregations that are not durable yet, with their versions' digests."""
        self._start_s: float | None = None
        self._left: dict[tuple[str, int], int] = {}
        """By task and device, versions that an earlier process had given out."""
        self._over: str | None = None

    # -- what devices ask ------------------------------------------------------------------------

    async def next_period(
        self, task: int, device: int, *, update_id: int, samples: int
    ) -> Start | Refusal:
        """Return when the device is to download, or why it is not to go on."""
        if self._start_s is None:
            return Refusal("the run has not begun")
        if (over := self._ended()) is not None:
            return over
        seat = self._seats[task].get(device)
        if seat is not None and seat.update_id == update_id:
            return await asyncio.shield(seat.begun)
        if seat is not None:
            self._abandon(task, device, "the device has begun another period")
        elapsed_s = self._clock.now_s() - self._start_s
        planned = await self.planner.plan(task, device, samples=samples, elapsed_s=elapsed_s)
        if planned is None:
            self._resting[task].add(device)
            self._excused()
            return Refusal("nothing more fits into the device's time and energy", rests=True)
        if (over := self._ended()) is not None:
            return over
        seat = self._seat(task, device, update_id, planned)
        self._attend(self._dispatch_at(task, seat.idle_until_s))
        return await asyncio.shield(seat.begun)

    async def report(
        self, task: int, device: int, *, update_id: int, figures: Figures
    ) -> Refusal | None:
        """Take a period's figures; return None when it is the device's turn to upload."""
        seat = self._seats[task].get(device)
        if seat is None or seat.update_id != update_id or seat.version is None:
            return Refusal(self._over or "the period was given up")
        if not seat.ready:
            seat.ready = True
            self.planner.take_figures(task, device, figures)
            self._dispatch(task)
        return await asyncio.shield(seat.turn)

    def _ended(self) -> Refusal | None:
        return None if self._over is None else Refusal(self._over)

    def resting(self, task: int) -> frozenset[int]:
        """Return the devices that do nothing more of a task."""
        return frozenset(self._resting[task])

    # -- what happens in the run -----------------------------------------------------------------

    def start(self, start_s: float) -> None:
        """Begin the window."""
        self._start_s = start_s
        for (name, device), version in self._left.items():
            self._log.write(ABANDONED, task=name, device=device, version=version)

    def resumed(self, lines: Iterable[Mapping[str, Value]]) -> None:
        """Give up, when the run begins again, what was under way: devices begin new periods.

        Args:
            lines: the events of the process before.

        """
        held = self._left
        for line in lines:
            if line.get("event") == RECEIVED:
                held[str(line["task"]), int(str(line["device"]))] = int(str(line["version"]))
            elif line.get("event") in (UPLOADED, ABANDONED):
                held.pop((str(line["task"]), int(str(line["device"]))), None)

    def aggregated(self, task: int, device: int, version: Version | None) -> None:
        """Note that a device's update was taken, and the version that it made, if any."""
        seat = self._seats[task].pop(device, None)
        rule = self._tasks[task].rule
        self.planner.purses[device].committed_j.pop(task, None)
        if seat is None or seat.version is None:
            return
        self._trained[task, device] = seat.version
        if not isinstance(rule, DmaFl) or version is None or rule.last is None:
            return
        rule.turns.pop(device, None)
        aggregation = version.number - 1
        upload = Uploaded(
            device, seat.version, aggregation, rule.last.mixing, version.published_mono_s
        )
        self._made[task].append((upload, digest(version.vector)))
        known = self._known[task]
        known.complete(device, seat.planned.plan, rule.last, aggregation - seat.version)

    def published(self, task: int) -> None:
        """Log the aggregations that are durable now, and decide again: a version may be received."""
        name, store = self._tasks[task].spec.name, self._tasks[task].store
        made = self._made[task]
        while made and made[0][0].aggregation < store.shown.number:
            upload, told = made.popleft()
            self._log.write(
                UPLOADED,
                task=name,
                device=upload.device,
                version=upload.version,
                aggregation=upload.aggregation,
                mixing=upload.mixing,
                digest=told,
            )
            self._write_bound(task, upload.aggregation + 1)
        self._dispatch(task)

    def roster_changed(self) -> None:
        """Give up the periods of devices that have left."""
        for task, seats in enumerate(self._seats):
            for device in sorted(seats.keys() - self._tasks[task].roster):
                self._abandon(task, device, "the device has left the run")
            self._dispatch(task)

    def end(self, reason: str) -> None:
        """Answer everybody: the run is over."""
        self._over = reason
        for seats in self._seats:
            for seat in seats.values():
                seat.refuse(Refusal(reason))

    # -- deciding --------------------------------------------------------------------------------

    def _seat(self, task: int, device: int, update_id: int, planned: PlannedPeriod) -> _Seat:
        loop = asyncio.get_running_loop()
        seat = _Seat(
            update_id,
            planned,
            self._clock.now_s() + planned.plan.idle_s,
            begun=loop.create_future(),
            turn=loop.create_future(),
        )
        if device in self._seats[task]:
            # The same device asked twice at once.
            self._abandon(task, device, "the device has begun another period")
        self._seats[task][device] = seat
        return seat

    def _abandon(self, task: int, device: int, reason: str) -> None:
        seat = self._seats[task].pop(device)
        rule = self._tasks[task].rule
        if isinstance(rule, DmaFl):
            rule.turns.pop(device, None)
        if seat.version is not None and not self._config.in_rounds:
            name = self._tasks[task].spec.name
            self._log.write(ABANDONED, task=name, device=device, version=seat.version)
        seat.refuse(Refusal(reason))
        self._dispatch(task)

    async def _dispatch_at(self, task: int, when_s: float) -> None:
        await self._clock.sleep_until(when_s)
        self._dispatch(task)

    def _dispatch(self, task: int) -> None:
        """Have devices receive and upload as is due now."""
        store = self._tasks[task].store
        # Who receives a version must be able to download it, and it must be the newest by the log.
        if self._over is not None or store.shown.number != store.newest.number:
            return
        newest, seats = store.newest.number, self._seats[task]
        for device in self._receivers(task, newest, seats):
            self._receive(task, device, seats[device], newest)
        for device in self._uploaders(newest, seats):
            rule, version = self._tasks[task].rule, seats[device].version
            if isinstance(rule, DmaFl) and version is not None:
                rule.turns[device] = version
            seats[device].turn.set_result(None)

    def _receivers(self, task: int, newest: int, seats: Mapping[int, _Seat]) -> Sequence[int]:
        now_s = self._clock.now_s()
        waiting = {device: seat for device, seat in seats.items() if seat.version is None}
        if self._config.schedule == "rolling":
            return next_receivers(
                [
                    Waiting(device, seat.idle_until_s, seat.planned.cost)
                    for device, seat in waiting.items()
                ],
                _holders(seats),
                newest=newest,
                cap=self._config.staleness_cap,
                now_s=now_s,
            )
        rested = [device for device, seat in waiting.items() if seat.idle_until_s <= now_s]
        if self._config.in_rounds:
            return [device for device in rested if self._trained.get((task, device), -1) < newest]
        return rested

    def _uploaders(self, newest: int, seats: Mapping[int, _Seat]) -> Sequence[int]:
        if self._config.schedule != "rolling":
            return [d for d, seat in seats.items() if seat.ready and not seat.uploads]
        if any(seat.version is not None and seat.uploads for seat in seats.values()):
            return ()
        chosen = next_uploader(_holders(seats), newest=newest, cap=self._config.staleness_cap)
        return () if chosen is None else (chosen.device,)

    def _receive(self, task: int, device: int, seat: _Seat, newest: int) -> None:
        seat.version = newest
        name, plan = self._tasks[task].spec.name, seat.planned.plan
        if not self._config.in_rounds:
            self._log.write(RECEIVED, task=name, device=device, version=newest)
        rolling = self._config.schedule == "rolling"
        self._log.write(
            "scheduled",
            task=name,
            device=device,
            version=newest,
            idle_s=round(plan.idle_s, 6),
            steps=plan.steps,
            batch=plan.batch_size,
            cpu_hz=plan.cpu_hz,
            deadline_version=newest + self._config.staleness_cap if rolling else None,
            planned_compute_s=seat.planned.compute_s,
            planned_j=seat.planned.energy_j,
        )
        seat.begun.set_result(Start(newest, seat.planned))

    def _write_bound(self, task: int, version: int) -> None:
        now_s = self._clock.now_s()
        if now_s < self._bound_due_s[task]:
            return
        self._bound_due_s[task] = now_s + _BETWEEN_BOUNDS_S
        found = self._known[task].bound()
        self._tasks[task].bound = _finite(found.total)
        names = zip("abcdef", found.each, strict=True)
        self._log.write(
            "bound",
            task=self._tasks[task].spec.name,
            version=version,
            terms={name: _finite(value) for name, value in names},
            total=_finite(found.total),
        )


class NoPeriods:
    """Where devices train as they like."""

    def resting(self, task: int) -> frozenset[int]:  # noqa: ARG002
        """Nobody rests."""
        return frozenset()

    def start(self, start_s: float) -> None:
        """Nothing begins."""

    def resumed(self, lines: Iterable[Mapping[str, Value]]) -> None:
        """Nothing was under way."""

    def aggregated(self, task: int, device: int, version: Version | None) -> None:
        """Nothing follows."""

    def published(self, task: int) -> None:
        """Nobody waits for it."""

    def roster_changed(self) -> None:
        """Nobody has a period."""

    def end(self, reason: str) -> None:
        """Nobody waits."""


def _holders(seats: Mapping[int, _Seat]) -> list[Holder]:
    return [
        # How long training still takes, nobody needs to know: whoever is not ready is waited for.
        Holder(device, seat.version, 0.0 if seat.ready else float("inf"), seat.planned.cost)
        for device, seat in seats.items()
        if seat.version is not None
    ]


def _finite(value: float) -> float | None:
    """Return None for infinity, which JSON lacks."""
    return value if abs(value) < float("inf") else None
