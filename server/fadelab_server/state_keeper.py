"""What survives a crash: the journal, and now and then a snapshot from which it goes on."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import Packet
from fadelab_server import checkpoint
from fadelab_server.assembly import Held, UpdateAssembly
from fadelab_server.checkpoint import Arrays, CheckpointError
from fadelab_server.config import ServerConfig
from fadelab_server.journal import Log, Reader, replay
from fadelab_server.journal.records import (
    Allotted,
    Announced,
    Applied,
    Base,
    Decision,
    Dropped,
    Granted,
    Kind,
    RosterChanged,
    RoundEnded,
    Started,
    encode_decision,
    intact,
)
from fadelab_server.journal.segments import FRAME_BYTES, segment_path, segment_starts
from fadelab_server.model_store import Version
from fadelab_server.replaying import Replay
from fadelab_server.rounds.book import RoundBook
from fadelab_server.rounds.config import BudgetConfig
from fadelab_server.task_state import TaskState

_KINDS: dict[type[Decision], Kind] = {
    Applied: Kind.APPLIED,
    Dropped: Kind.DROPPED,
    RosterChanged: Kind.ROSTER,
    Started: Kind.STARTED,
    Allotted: Kind.ALLOTTED,
    RoundEnded: Kind.ROUND_ENDED,
    Granted: Kind.GRANTED,
}
_SNAPSHOT_EVERY = 8
"""Times the size of a snapshot that the journal may grow before the next one."""
_SNAPSHOT_BYTES = 64 << 20
"""The journal grows at least this much first."""
_SEGMENT_BYTES = 32 << 20


class StateKeeper:
    """The journal of one server, and everything that it tells of: tasks and unfinished updates.

    Args:
        config: where it lies and how durable it is.
        tasks: their states; changed by a replay.

    """

    def __init__(self, config: ServerConfig, tasks: Sequence[TaskState]) -> None:
        self.uploads: dict[tuple[int, int], UpdateAssembly] = {}
        """Unfinished updates by task index and device: one at a time for each pair."""
        self.start_mono_s: float | None = None
        allocation = config.allocation
        self.book = RoundBook(BudgetConfig() if allocation is None else allocation.budget)
        """What rounds cost whose powers this server decides."""
        self.memory_bytes = 0
        """What unfinished updates hold outside the journal."""
        self._config = config
        self._tasks = tasks
        self._log: Log | None = None
        self._reader = Reader(self.directory)
        self._snapshot_end = 0
        self._snapshot_bytes = 0
        self._saving = asyncio.Lock()
        self._recoverable: list[set[int]] = [set() for _ in tasks]
        """For each task, the versions before the last snapshot that a replay has."""
        self._newest_in_snapshot = [0 for _ in tasks]

    @property
    def log(self) -> Log:
        """The journal."""
        if self._log is None:
            self._log = Log(
                self.directory, segment_bytes=_SEGMENT_BYTES, sync=self._config.journal_sync
            )
        return self._log

    @property
    def directory(self) -> Path:
        """Where the journal's segments lie."""
        return self._config.checkpoint_dir / "journal"

    async def close(self) -> None:
        """Write what is pending and close the journal."""
        await self.log.close()
        self._reader.close()

    def clear(self) -> None:
        """Remove the journal of an earlier run."""
        for start in segment_starts(self.directory):
            segment_path(self.directory, start).unlink(missing_ok=True)

    # -- what comes in -----------------------------------------------------------------------------

    def announce(
        self, header: pb.UploadHeader, base: Version, *, device: int, now_s: float
    ) -> UpdateAssembly:
        """Begin to collect an update; the one that the device had begun before is forgotten."""
        key = (header.task_index, device)
        if key in self.uploads:
            self.decide(Dropped(*key, self.uploads[key].header.update_id))
        self.forget(key)
        self._keep_base(header.task_index, base)
        position = self._append(Kind.ANNOUNCED, Announced(device, now_s, header).encode())
        self.uploads[key] = UpdateAssembly(
            header,
            base,
            device=device,
            run_id=self._config.run_id,
            now_s=now_s,
            position=position,
        )
        return self.uploads[key]

    def hold(
        self, assembly: UpdateAssembly, packet: Packet, data: bytes | memoryview, now_s: float
    ) -> None:
        """Put a packet into the journal, and into memory as long as there is room for it."""
        position = self._append(Kind.PACKET, data, summed=False)
        fits = self.memory_bytes + len(data) <= self._config.upload_memory_bytes
        assembly.hold(packet, Held(position, len(data), packet if fits else None), now_s)
        self.memory_bytes += len(data) if fits else 0

    def decide(self, decision: Decision) -> int:
        """Put a decision into the journal; return the position at which it is durable."""
        return self.log.append(_KINDS[type(decision)], encode_decision(decision))

    def read(self, position: int, length: int) -> bytes:
        """Return what the journal holds of a packet that is durable."""
        return self._reader.body(position, length)

    def forget(self, key: tuple[int, int]) -> None:
        """Collect an update no longer: it was taken, refused, or replaced."""
        assembly = self.uploads.pop(key, None)
        if assembly is not None:
            self.memory_bytes -= assembly.memory_bytes
            assembly.wake()

    def _append(self, kind: Kind, body: bytes | memoryview, *, summed: bool = True) -> int:
        """Put a record into the journal; return where it begins.

        It is of an upload, which is answered when it is durable.
        """
        end = self.log.append(kind, body, summed=summed, awaited=True)
        return end - FRAME_BYTES - len(body)

    def _keep_base(self, task: int, base: Version) -> None:
        known = self._recoverable[task]
        if base.number > self._newest_in_snapshot[task] or base.number in known:
            return
        record = Base(task, base.number, base.published_mono_s, base.vector)
        self.log.append(Kind.BASE, record.encode())
        known.add(base.number)

    # -- snapshots ---------------------------------------------------------------------------------

    def snapshot_due(self) -> bool:
        """Whether the journal has grown enough for the next snapshot."""
        grown = self.log.end - self._snapshot_end
        enough = max(_SNAPSHOT_BYTES, _SNAPSHOT_EVERY * self._snapshot_bytes)
        return grown > enough and not self._saving.locked()

    async def snapshot(self) -> None:
        """Save the state as it is now, then release the journal that it makes superfluous.

        Nothing may be decided until the first suspension of this coroutine.

        Raises:
            CheckpointError: if it cannot be written.

        """
        end = self.log.end
        needed_from = min([end, *(upload.position for upload in self.uploads.values())])
        meta, arrays = self._state(end)
        self._snapshot_end = end
        self._snapshot_bytes = sum(array.nbytes for array in arrays.values())
        async with self._saving:
            # What the journal lacks, the snapshot must not have.
            await self.log.durable(end)
            await asyncio.to_thread(checkpoint.save, self._config.checkpoint_dir, meta, arrays)
            # Deleting large files takes the kernel a while.
            if not self._config.journal_keeps:
                await asyncio.to_thread(self.log.release, needed_from)

    def _state(self, end: int) -> tuple[dict[str, object], Arrays]:
        metas = []
        arrays: Arrays = {}
        for index, task in enumerate(self._tasks):
            bases = [u.base for (own, _), u in self.uploads.items() if own == index]
            meta, own_arrays = task.snapshot(bases)
            metas.append(meta)
            arrays.update({f"{index}.{name}": array for name, array in own_arrays.items()})
            self._note_versions(index, task.needed_versions(bases))
        head: dict[str, object] = {
            "run_id": self._config.run_id,
            "start_mono_s": self.start_mono_s,
            "journal": end,
            "tasks": metas,
            "rounds": self.book.snapshot(),
        }
        return head, arrays

    def _note_versions(self, index: int, versions: Sequence[Version]) -> None:
        self._recoverable[index] = {version.number for version in versions}
        self._newest_in_snapshot[index] = versions[-1].number

    # -- coming back -------------------------------------------------------------------------------

    def restore(self, directory: Path) -> None:
        """Continue from the snapshot in a directory and the journal beside it.

        Raises:
            CheckpointError: if there is none, it belongs to another run or model, or is damaged.

        """
        meta, arrays = checkpoint.load(directory)
        try:
            end = self._restore_snapshot(meta, arrays)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint in {directory} lacks a part or holds a wrong one: {error}"
            ) from error
        again = Replay(self._config, self._tasks, self.read, book=self.book, decided_until=end)
        for record in replay(directory / "journal", intact):
            again.take(record)
        if again.start_mono_s is not None:
            self.start_mono_s = again.start_mono_s
        for task, version in again.bases:
            self._recoverable[task].add(version)
        self.uploads.update(again.unfinished())
        self.memory_bytes = sum(upload.memory_bytes for upload in self.uploads.values())
        for task_state in self._tasks:
            task_state.store.show(task_state.store.newest)

    def _restore_snapshot(self, meta: dict[str, object], arrays: Arrays) -> int:
        if meta.get("run_id") != self._config.run_id:
            raise CheckpointError(
                f"the checkpoint is of run {meta.get('run_id')}, not {self._config.run_id}"
            )
        task_metas = meta["tasks"]
        if not isinstance(task_metas, list) or len(task_metas) != len(self._tasks):
            raise CheckpointError(
                f"the checkpoint does not hold the experiment's {len(self._tasks)} tasks"
            )
        for index, (task, task_meta) in enumerate(zip(self._tasks, task_metas, strict=True)):
            prefix = f"{index}."
            own = {
                name.removeprefix(prefix): array
                for name, array in arrays.items()
                if name.startswith(prefix)
            }
            task.restore(task_meta, own)
            self._note_versions(index, task.store.held())
        self.book.restore(meta.get("rounds"))
        start, end = meta.get("start_mono_s"), meta["journal"]
        if isinstance(start, float):
            self.start_mono_s = start
        if not isinstance(end, int):
            raise CheckpointError("the checkpoint does not say where the journal goes on")
        self._snapshot_end = end
        return end
