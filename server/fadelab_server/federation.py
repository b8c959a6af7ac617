"""The run as the server sees it: sessions, tasks, unfinished uploads, start and stop.

No gRPC in here: the services translate between messages and this class, so that tests and other
transports can drive it directly.
"""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_proto.packet import HEADER_BYTES
from fadelab_server import checkpoint
from fadelab_server.aggregation import Roster, build_rule
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.checkpoint import Arrays, Checkpointer, CheckpointError
from fadelab_server.config import ServerConfig, TaskSpec
from fadelab_server.model_store import ModelStore, Version
from fadelab_server.sessions import JOIN_GRACE_S, Session, SessionTable
from fadelab_server.signal import Signal
from fadelab_server.task_state import Applied, TaskState


class Federation:
    """State and decisions of one run; everything happens in one event loop."""

    def __init__(self, config: ServerConfig, clock: Clock, log: EventLog) -> None:
        self.config = config
        self.clock = clock
        self.log = log
        self.sessions = SessionTable(config)
        self.changed = Signal()
        self.tasks = [self._new_task(spec) for spec in config.tasks]
        self.uploads: dict[tuple[int, int], UpdateAssembly] = {}
        """Unfinished uploads by task index and device: one at a time for each pair."""
        self.validations: dict[int, pb.ValidationReport] = {}
        self.start_mono_s: float | None = None
        self.stop_reason: str | None = None
        self.draining = False
        self.stopped = asyncio.Event()
        self._timers: set[asyncio.Task[None]] = set()
        self._awaited_until_s = -math.inf
        self.checkpointer = Checkpointer(config.checkpoint_dir, self._snapshot)

    # -- start and stop ------------------------------------------------------------------------

    def start(self, start_mono_s: float) -> None:
        """Begin the run; a second call changes nothing."""
        if self.start_mono_s is not None:
            return
        self.start_mono_s = start_mono_s
        self.log.set_start(start_mono_s)
        self.log.write("run_started", start_mono_s=start_mono_s)
        self._roster_changed()
        self._keep(asyncio.create_task(self._stop_after_duration(start_mono_s)))
        self.changed.notify()

    def stop(self, reason: str) -> None:
        """End the run: devices are told, unfinished uploads stay partial."""
        if self.stop_reason is not None:
            return
        self.stop_reason = reason
        for timer in self._timers:
            timer.cancel()
        for (task_index, device), upload in sorted(self.uploads.items()):
            self._log_upload("upload_partial", task_index, device, upload)
        self.log.write("run_stopped", reason=reason)
        self.stopped.set()
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
        session = self.sessions.join(request, self.clock.now_s())
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
        return present | self.tasks[task_index].roster if now_s < self._awaited_until_s else present

    async def _review_roster(self, when_s: float) -> None:
        await self.clock.sleep_until(when_s)
        self._roster_changed()

    def _roster_changed(self) -> None:
        if self.start_mono_s is None or self.stop_reason is not None:
            return
        now = self.clock.now_s()
        for index, task in enumerate(self.tasks):
            published = task.set_roster(self._roster(index, now), now)
            if published is not None:
                self._note_version(index, published)
        self.changed.notify()

    # -- uploads ---------------------------------------------------------------------------------

    def open_upload(self, header: pb.UploadHeader, session: Session) -> UpdateAssembly:
        """Return the assembly for an announced update: a kept one, or a new one."""
        key = (header.task_index, session.device)
        kept = self.uploads.get(key)
        if kept is not None and kept.resumed_by(header):
            return kept
        if kept is not None:
            self._log_upload("upload_abandoned", *key, kept)
        assembly = UpdateAssembly(
            header, device=session.device, run_id=self.config.run_id, now_s=self.clock.now_s()
        )
        self.uploads[key] = assembly
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

    def announced_bytes(self, *, besides: tuple[int, int]) -> int:
        """Return the payload bytes that unfinished uploads may grow to, ``besides`` left out."""
        return sum(
            upload.header.payload_bytes for key, upload in self.uploads.items() if key != besides
        )

    def finish_upload(self, assembly: UpdateAssembly, base: Version) -> Applied:
        """Aggregate a complete update and publish what results.

        Raises:
            ContributionRefusedError: if it cannot be taken; nothing has changed.

        """
        index = assembly.header.task_index
        now = self.clock.now_s()
        applied = self.tasks[index].apply(assembly, base, now)
        self.uploads.pop((index, assembly.device), None)
        self._log_upload("upload_complete", index, assembly.device, assembly, applied)
        if applied.published is not None:
            self._note_version(index, applied.published)
        self.changed.notify()
        return applied

    def drop_upload(self, assembly: UpdateAssembly, reason: str) -> None:
        """Forget an update that was refused."""
        if self.holds(assembly):
            del self.uploads[assembly.header.task_index, assembly.device]
        self.log.write(
            "upload_refused",
            device=assembly.device,
            update_id=assembly.header.update_id,
            reason=reason,
        )

    def _log_upload(
        self,
        event: str,
        task_index: int,
        device: int,
        upload: UpdateAssembly,
        applied: Applied | None = None,
    ) -> None:
        self.log.write(
            event,
            device=device,
            task=self.tasks[task_index].spec.name,
            update_id=upload.header.update_id,
            base_version=upload.header.base_version,
            samples=upload.header.samples,
            packets=len(upload.sequences),
            packets_announced=upload.header.packets,
            payload_bytes=upload.payload_bytes,
            header_bytes=HEADER_BYTES * len(upload.sequences),
            duplicates=upload.duplicates,
            started_mono_s=upload.started_s,
            mark_mono_s=upload.timer.mark_s,
            last_mono_s=upload.timer.last_s,
            bytes_after_mark=upload.timer.bytes_after_mark,
            staleness_versions=None if applied is None else applied.staleness_versions,
            staleness_s=None if applied is None else round(applied.staleness_s, 6),
        )

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

    def _note_version(self, task_index: int, version: Version) -> None:
        task = self.tasks[task_index]
        self.log.write(
            "version_published",
            task=task.spec.name,
            version=version.number,
            published_mono_s=version.published_mono_s,
        )
        self._stop_at_limit()

    def _stop_at_limit(self) -> None:
        limit = self.config.stop.max_versions
        if limit is not None and self.tasks[0].store.newest.number >= limit:
            self.stop(f"{limit} versions are published")

    # -- checkpoints -----------------------------------------------------------------------------

    async def make_durable(self) -> None:
        """Return once everything taken so far is on the disk.

        Raises:
            CheckpointError: if that failed; the run is stopped, since going on would break the
                promise that acknowledged updates survive.

        """
        try:
            await self.checkpointer.durable()
        except CheckpointError as error:
            self.stop(str(error))
            raise

    def resume(self, directory: Path) -> None:
        """Continue from the checkpoint in ``directory``.

        Raises:
            CheckpointError: if there is none, or it belongs to another run or model.

        """
        meta, arrays = checkpoint.load(directory)
        try:
            self._restore(meta, arrays)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint in {directory} lacks a part or holds a wrong one: {error}"
            ) from error
        self.log.write("resumed", versions=[task.store.newest.number for task in self.tasks])
        # Nobody is connected yet. Without this wait for the devices that were in the run, a
        # half-finished round would end with whoever had contributed before the crash.
        self._awaited_until_s = self.clock.now_s() + JOIN_GRACE_S
        self._keep(asyncio.create_task(self._review_roster(self._awaited_until_s)))
        start = meta.get("start_mono_s")
        if isinstance(start, float):
            self.start(start)
        self._stop_at_limit()

    def _restore(self, meta: dict[str, object], arrays: Arrays) -> None:
        if meta.get("run_id") != self.config.run_id:
            raise CheckpointError(
                f"the checkpoint is of run {meta.get('run_id')}, not {self.config.run_id}"
            )
        task_metas = meta["tasks"]
        if not isinstance(task_metas, list) or len(task_metas) != len(self.tasks):
            raise CheckpointError(
                f"the checkpoint does not hold the experiment's {len(self.tasks)} tasks"
            )
        for index, (task, task_meta) in enumerate(zip(self.tasks, task_metas, strict=True)):
            own = dict(_with_prefix(arrays, f"{index}."))
            task.restore(task_meta, own, self.clock.now_s())

    def _snapshot(self) -> tuple[dict[str, object], Arrays]:
        metas = []
        arrays: Arrays = {}
        for index, task in enumerate(self.tasks):
            meta, own = task.snapshot()
            metas.append(meta)
            arrays.update({f"{index}.{name}": array for name, array in own.items()})
        head: dict[str, object] = {
            "run_id": self.config.run_id,
            "start_mono_s": self.start_mono_s,
            "tasks": metas,
        }
        return head, arrays

    def _new_task(self, spec: TaskSpec) -> TaskState:
        vector = np.load(spec.initial, allow_pickle=False)
        if vector.shape != (spec.dimension,) or vector.dtype != np.float32:
            raise CheckpointError(
                f"{spec.initial} holds {vector.dtype}{list(vector.shape)}, "
                f"not float32[{spec.dimension}] for task '{spec.name}'"
            )
        initial = Version(0, vector, self.clock.now_s())
        store = ModelStore(initial, self.config.history_bytes)
        rule = build_rule(self.config.aggregation, spec.dimension)
        return TaskState(spec, rule, store, roster=frozenset(range(self.config.devices)))


def _finite(value: float) -> float | None:
    """Return None for NaN and infinity, which training that diverges leads to and JSON lacks."""
    return value if math.isfinite(value) else None


def _with_prefix(arrays: Arrays, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in arrays.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), array
