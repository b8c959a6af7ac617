"""The run as the server sees it: sessions, tasks, unfinished uploads, start and stop.

No gRPC in here: the services translate between messages and this class, so that tests and other
transports can drive it directly.
"""

import asyncio
import contextlib
import math
from collections.abc import Coroutine
from pathlib import Path

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.codecs import CodecError
from fadelab_proto.events import EventLog, read_events
from fadelab_proto.packet import Packet
from fadelab_server.aggregation import Roster
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.config import ServerConfig
from fadelab_server.journal.records import Allotted, Dropped, RosterChanged, RoundEnded, Started
from fadelab_server.journal.records import Applied as AppliedRecord
from fadelab_server.model_delivery import Deliveries
from fadelab_server.model_store import Version
from fadelab_server.new_task import new_task
from fadelab_server.periods.build import build_periods
from fadelab_server.rounds.build import build_desk
from fadelab_server.sessions import JOIN_GRACE_S, Session, SessionTable
from fadelab_server.signal import Signal
from fadelab_server.state_keeper import StateKeeper
from fadelab_server.task_state import (
    Applied,
    ContributionRefusedError,
    UpdateDiscardedError,
)
from fadelab_server.upload_events import log_refusal, log_upload


class Federation:
    """State and decisions of one run; everything happens in one event loop."""

    def __init__(self, config: ServerConfig, clock: Clock, log: EventLog) -> None:
        self.config = config
        self.clock = clock
        self.log = log
        self.sessions = SessionTable(config)
        self.changed = Signal()
        """Anything has changed that a status tells of."""
        self.orders = Signal()
        """Devices have something else to do. Every device listens: it must not be told of every
        packet of the others."""
        self.tasks = [new_task(config, spec, clock.now_s()) for spec in config.tasks]
        self.deliveries = [Deliveries(task, config) for task in self.tasks]
        self.keeper = StateKeeper(config, self.tasks)
        self.uploads = self.keeper.uploads
        """Unfinished uploads by task index and device: one at a time for each pair."""
        self.validations: dict[int, pb.ValidationReport] = {}
        self.start_mono_s: float | None = None
        self.stop_reason: str | None = None
        self.draining = False
        self.stopped = asyncio.Event()
        self._timers: set[asyncio.Task[None]] = set()
        self._awaited_until_s = -math.inf
        self._turn = asyncio.Lock()
        """Held by whoever changes a task."""
        self._resumed = False
        self._finishing: dict[UpdateAssembly, asyncio.Task[Applied]] = {}
        self.desk = build_desk(
            config,
            self.tasks[0],
            self.keeper,
            clock=clock,
            log=log,
            stop=self.stop,
            excused=self._roster_changed,
        )
        """Where devices report updates before they upload them."""
        self.periods = build_periods(
            config,
            self.tasks,
            clock=clock,
            log=log,
            attend=self.attend,
            excused=self._roster_changed,
        )
        """Where devices ask for their next local period, if the server schedules them."""
        self.datagram_port = 0
        """UDP port at which packets of loss-tolerant classes are taken; 0 where none are."""

    # -- start and stop ------------------------------------------------------------------------

    def start(self, start_mono_s: float) -> None:
        """Begin the run; a second call changes nothing."""
        if self.start_mono_s is not None:
            return
        self.start_mono_s = self.keeper.start_mono_s = start_mono_s
        self.keeper.decide(Started(start_mono_s))
        self.log.set_start(start_mono_s)
        self.log.write("run_started", start_mono_s=start_mono_s)
        self.periods.start(start_mono_s)
        self._roster_changed()
        self._keep(asyncio.create_task(self._stop_after_duration(start_mono_s)))
        self.desk.settle()
        self.orders.notify()
        self.changed.notify()

    def stop(self, reason: str) -> None:
        """End the run: devices are told, unfinished uploads stay partial."""
        if self.stop_reason is not None:
            return
        self.stop_reason = reason
        for timer in self._timers:
            timer.cancel()
        for (task_index, _), upload in sorted(self.uploads.items()):
            self._log_upload("upload_partial", task_index, upload)
        self.desk.end()
        self.periods.end(reason)
        self.log.write("run_stopped", reason=reason)
        self.stopped.set()
        self.orders.notify()
        self.changed.notify()

    async def _stop_after_duration(self, start_mono_s: float) -> None:
        await self.clock.sleep_until(start_mono_s + self.config.stop.duration_s)
        self.stop(f"the duration of {self.config.stop.duration_s:g} s is over")

    def _keep(self, timer: asyncio.Task[None]) -> None:
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    # -- sessions --------------------------------------------------------------------------------

    def join(self, request: pb.JoinRequest) -> Session:
        """Admit a device; see :meth:`SessionTable.join`."""
        earlier = self.sessions.held_by(request.device)
        session = self.sessions.join(request, self.clock.now_s())
        if earlier is not None and earlier.streams:
            self.orders.notify()  # its streams end, though the agent at their other end may be gone
        self.log.write("device_joined", device=session.device)
        self._roster_changed()
        self._keep(asyncio.create_task(self._review_roster(session.joined_s + JOIN_GRACE_S)))
        self.changed.notify()
        return session

    def stream_opened(self, session: Session) -> None:
        """Note that a session's directive stream is open."""
        session.streams += 1
        session.ever_streamed = True
        self._roster_changed()
        self.changed.notify()

    def stream_closed(self, session: Session) -> None:
        """Note that it closed; the device has left if it was the last one of its session."""
        session.streams -= 1
        if session.streams == 0 and self.sessions.find(session.token) is session:
            self.log.write("device_left", device=session.device)
            self._roster_changed()
        self.changed.notify()

    def _roster(self, task_index: int, now_s: float) -> Roster:
        sessions = self.sessions.alive(now_s)
        present = frozenset(s.device for s in sessions if task_index in s.samples)
        present -= self.desk.silenced | self.periods.resting(task_index)
        return present | self.tasks[task_index].roster if now_s < self._awaited_until_s else present

    async def _review_roster(self, when_s: float) -> None:
        await self.clock.sleep_until(when_s)
        self._roster_changed()

    def _roster_changed(self) -> None:
        if self.start_mono_s is None or self.stop_reason is not None:
            return
        if self._turn.locked():
            self._keep(asyncio.create_task(self._set_rosters_in_turn()))
        else:
            self._set_rosters()
        self.changed.notify()

    async def _set_rosters_in_turn(self) -> None:
        async with self._turn:
            self._set_rosters()

    def _set_rosters(self) -> None:
        now = self.clock.now_s()
        for index, task in enumerate(self.tasks):
            roster = self._roster(index, now)
            if roster == task.roster:
                continue
            end = self.keeper.decide(RosterChanged(index, tuple(sorted(roster)), now))
            published = task.set_roster(roster, now)
            if published is not None:
                self._keep(asyncio.create_task(self._show(index, published, end)))
        self.desk.roster_changed()
        self.periods.roster_changed()

    # -- uploads ---------------------------------------------------------------------------------

    def open_upload(
        self, header: pb.UploadHeader, session: Session, base: Version
    ) -> UpdateAssembly:
        """Return the assembly for an announced update: a kept one, or a new one."""
        key = (header.task_index, session.device)
        kept = self.uploads.get(key)
        if kept is not None and kept.resumed_by(header):
            return kept
        if kept is not None:
            self._log_upload("upload_abandoned", key[0], kept)
        assembly = self.keeper.announce(
            header, base, device=session.device, now_s=self.clock.now_s()
        )
        if header.packets > 1:  # what comes in one piece is told of once it is there
            self.log.write(
                "upload_started",
                device=session.device,
                task=self.tasks[header.task_index].spec.name,
                update_id=header.update_id,
                base_version=header.base_version,
            )
        return assembly

    def holds(self, assembly: UpdateAssembly) -> bool:
        """Whether this is still its device's upload, neither finished nor replaced."""
        return self.uploads.get((assembly.header.task_index, assembly.device)) is assembly

    def add_packet(self, assembly: UpdateAssembly, data: bytes | memoryview) -> None:
        """Take one packet of an update; a second copy of one is counted and otherwise ignored.

        Raises:
            PacketError: if it is damaged or does not belong to this update.
            CheckpointError: if the journal takes nothing any more.

        """
        packet = assembly.accept(memoryview(data))
        if packet is not None:
            self._hold(assembly, packet, data, self.clock.now_s())

    def add_datagram(
        self, assembly: UpdateAssembly, packet: Packet, data: bytes, arrived_s: float
    ) -> None:
        """Take one packet that came in a datagram and was found undamaged; as :meth:`add_packet`.

        Raises:
            PacketError: if it does not belong to this update.
            CheckpointError: if the journal takes nothing any more.

        """
        if assembly.accept_parsed(packet) is not None:
            self._hold(assembly, packet, data, arrived_s)
            assembly.in_datagrams = assembly.in_datagrams.with_one_more(len(packet.payload))

    def _hold(
        self, assembly: UpdateAssembly, packet: Packet, data: bytes | memoryview, now_s: float
    ) -> None:
        self.keeper.hold(assembly, packet, data, now_s)
        if assembly.complete:
            assembly.wake()
        self.changed.notify()

    async def finish_upload(self, assembly: UpdateAssembly) -> Applied:
        """Aggregate an update and publish what results; durable when this returns.

        Of an update that is not complete, nothing more will come. Several callers may wait for the
        same update; one of them going away does not stop it.

        Raises:
            UpdateDiscardedError: if it is not complete and not taken in part.
            ContributionRefusedError: if it cannot be taken; nothing has changed.
            CodecError: if a packet of it cannot be decoded; likewise.
            CheckpointError: if that could not be made durable; the run is stopped.

        """
        if assembly not in self._finishing:
            task = asyncio.create_task(self._take(assembly))
            self._finishing[assembly] = task
            task.add_done_callback(lambda _: self._finishing.pop(assembly, None))
        return await asyncio.shield(self._finishing[assembly])

    async def _take(self, assembly: UpdateAssembly) -> Applied:
        key = index, device = assembly.header.task_index, assembly.device
        task, update_id = self.tasks[index], assembly.header.update_id
        if not assembly.in_memory:
            await self.make_durable()
        async with self._turn:
            self._refuse_to_take(assembly)
            # From here on no stream adds to it.
            self.keeper.forget(key)
            try:
                vector = await task.combine_aside(assembly, self.keeper.read)
            except (ContributionRefusedError, CodecError) as error:
                self.keeper.decide(Dropped(*key, update_id))
                log_refusal(self.log, task.spec.name, assembly, str(error))
                raise
            now = self.clock.now_s()
            applied = task.commit(assembly, vector, now)
            arrived_s = assembly.timer.last_s or now
            end = self.keeper.decide(AppliedRecord(index, device, update_id, now, arrived_s))
            self._log_upload("upload_complete", index, assembly, applied)
            self.desk.finished(device, arrived_s)
            self.periods.aggregated(index, device, applied.published)
            if self.keeper.snapshot_due():
                self._keep(asyncio.create_task(self._snapshot()))
        if applied.published is None:
            await self.make_durable(end)
        else:
            await self._show(index, applied.published, end)
        self.changed.notify()
        return applied

    def _refuse_to_take(self, assembly: UpdateAssembly) -> None:
        if self.stop_reason is not None:
            raise ContributionRefusedError("the run is over")
        if not self.holds(assembly):
            raise ContributionRefusedError("the device has begun another upload since")
        keep = self.config.partial_updates == "keep" and len(assembly.received)
        if not (assembly.complete or keep):
            reason = "it was closed early, and only whole updates are taken"
            self.drop_upload(assembly, reason)
            raise UpdateDiscardedError(reason)
        header = assembly.header
        refusal = self.tasks[header.task_index].refuse(
            device=assembly.device, base_version=header.base_version
        )
        if refusal is not None:
            self.drop_upload(assembly, refusal)
            raise ContributionRefusedError(refusal)

    def drop_upload(self, assembly: UpdateAssembly, reason: str) -> None:
        """Forget an update that was refused."""
        key = (assembly.header.task_index, assembly.device)
        if self.holds(assembly):
            self.keeper.forget(key)
            self.keeper.decide(Dropped(*key, assembly.header.update_id))
        log_refusal(self.log, self.tasks[key[0]].spec.name, assembly, reason)

    def _log_upload(
        self, event: str, task_index: int, upload: UpdateAssembly, applied: Applied | None = None
    ) -> None:
        log_upload(self.log, event, self.tasks[task_index].spec.name, upload, applied)

    # -- rounds with a deadline -------------------------------------------------------------------

    def attend(self, work: Coroutine[None, None, None]) -> None:
        """Have this done beside everything else, until the run stops."""
        self._keep(asyncio.create_task(work))

    async def allot(self, allotted: Allotted) -> None:
        """Open a round; durable when this returns, so that devices may be told."""
        async with self._turn:
            end = self.keeper.decide(allotted)
            self.tasks[allotted.task].allot(allotted)
        await self.make_durable(end)

    async def end_round(self, task_index: int, version: int) -> None:
        """Take what has arrived of the round's updates, and end it if that did not."""
        task = self.tasks[task_index]
        for (index, _), upload in sorted(self.uploads.items()):
            if index == task_index and upload.base.number == version and len(upload.received):
                with contextlib.suppress(ContributionRefusedError, CodecError):
                    await self.finish_upload(upload)
        async with self._turn:
            if task.store.newest.number != version:
                return
            now = self.clock.now_s()
            end = self.keeper.decide(RoundEnded(task_index, now))
            published = task.end_round(now)
        if published is not None:
            await self._show(task_index, published, end)

    # -- versions --------------------------------------------------------------------------------

    def validated(self, report: pb.ValidationReport) -> None:
        """Take the validator's reading of a version."""
        self.validations[report.task_index] = report
        self.log.write(
            "validation",
            task=self.tasks[report.task_index].spec.name,
            version=report.version,
            loss=_finite(report.loss),
            metric=_finite(report.metric),
        )
        self.changed.notify()

    async def _show(self, task_index: int, version: Version, end: int) -> None:
        """Let others see a version as soon as all that led to it is durable."""
        await self.make_durable(end)
        task = self.tasks[task_index]
        if version.number <= task.store.shown.number:
            return
        for own in task.store.held():
            if task.store.shown.number < own.number <= version.number:
                self.log.write(
                    "version_published",
                    task=task.spec.name,
                    version=own.number,
                    published_mono_s=own.published_mono_s,
                )
        task.store.show(version)
        self.desk.published(version.number)
        self.periods.published(task_index)
        if task.rule.synchronous:
            self.orders.notify()
        self.changed.notify()
        self._stop_at_limit()

    def _stop_at_limit(self) -> None:
        limit = self.config.stop.max_versions
        if limit is not None and self.tasks[0].store.shown.number >= limit:
            self.stop(f"{limit} versions are published")

    # -- what survives a crash ---------------------------------------------------------------------

    async def make_durable(self, position: int | None = None) -> None:
        """Return once everything taken so far, or up to a position of the journal, is durable.

        Raises:
            CheckpointError: if that failed; the run is stopped, since going on would break the
                promise that acknowledged updates survive.

        """
        log = self.keeper.log
        try:
            await log.durable(log.end if position is None else position)
        except CheckpointError as error:
            self.stop(str(error))
            raise

    async def begin(self) -> None:
        """Write a first snapshot, to which the server can return after a crash."""
        if not self._resumed:
            self.keeper.clear()
        async with self._turn:
            await self.keeper.snapshot()

    async def _snapshot(self) -> None:
        async with self._turn:
            saving = asyncio.create_task(self.keeper.snapshot())
            await asyncio.sleep(0)
        try:
            await saving
        except CheckpointError as error:
            self.stop(str(error))

    async def close(self) -> None:
        """Save the state for the last time and close the journal."""
        async with self._turn:
            await self.keeper.snapshot()
        await self.desk.close()
        await self.keeper.close()

    def resume(self, directory: Path) -> None:
        """Continue from the checkpoint and the journal in ``directory``.

        Raises:
            CheckpointError: if there is none, it belongs to another run or model, or is damaged.

        """
        self.keeper.restore(directory)
        self._resumed = True
        self.periods.resumed(read_events(self.config.events_dir / "server-0.jsonl"))
        self.log.write("resumed", versions=[task.store.newest.number for task in self.tasks])
        # Nobody is connected yet. Without this wait for the devices that were in the run, a
        # half-finished round would end with whoever had contributed before the crash.
        self._awaited_until_s = self.clock.now_s() + JOIN_GRACE_S
        self._keep(asyncio.create_task(self._review_roster(self._awaited_until_s)))
        if self.keeper.start_mono_s is not None:
            self.start(self.keeper.start_mono_s)
        self._stop_at_limit()
        self.desk.resume()


def _finite(value: float) -> float | None:
    """Return None for NaN and infinity, which training that diverges leads to and JSON lacks."""
    return value if math.isfinite(value) else None
