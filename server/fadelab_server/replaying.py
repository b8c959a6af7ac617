"""Doing once more what the journal says."""

from collections.abc import Callable, Sequence

from fadelab_proto.packet import parse_packet
from fadelab_server.assembly import Held, UpdateAssembly
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.config import ServerConfig
from fadelab_server.journal import Record
from fadelab_server.journal.records import (
    Allotted,
    Announced,
    Applied,
    Base,
    Dropped,
    Granted,
    Kind,
    RosterChanged,
    RoundEnded,
    Started,
    decode_decision,
)
from fadelab_server.model_store import Version
from fadelab_server.rounds.book import RoundBook
from fadelab_server.task_state import TaskState


class Replay:
    """Brings tasks from the state of a snapshot to that of the journal's end.

    Args:
        config: the server's.
        tasks: their states, as the snapshot has them; changed.
        read: reads packets back from the journal.
        book: of rounds whose powers the server decides; changed.
        decided_until: decisions before this position are in the snapshot already.

    """

    def __init__(
        self,
        config: ServerConfig,
        tasks: Sequence[TaskState],
        read: Callable[[int, int], bytes],
        *,
        book: RoundBook,
        decided_until: int,
    ) -> None:
        self.start_mono_s: float | None = None
        self.bases: dict[tuple[int, int], Version] = {}
        """By task and number, versions that only the journal has."""
        self._config = config
        self._tasks = tasks
        self._read = read
        self._book = book
        self._decided_until = decided_until
        self._memory_bytes = 0
        self._pending: dict[tuple[int, int, int], UpdateAssembly] = {}
        """By task, device and number, updates that nothing was decided about yet, in order."""

    def take(self, record: Record) -> None:
        """Take the next record.

        Raises:
            CheckpointError: if it contradicts those before it.

        """
        decided = record.position < self._decided_until
        match record.kind:
            case Kind.BASE:
                base = Base.decode(record.body)
                version = Version(base.version, base.vector, base.published_mono_s)
                self.bases[base.task, base.version] = version
            case Kind.ANNOUNCED:
                self._announce(record)
            case Kind.PACKET:
                self._hold(record)
            case Kind.APPLIED:
                self._apply(decode_decision(Applied, record.body), decided=decided)
            case Kind.DROPPED:
                dropped = decode_decision(Dropped, record.body)
                self._forget(dropped.task, dropped.device, dropped.update_id)
            case Kind.ROSTER if not decided:
                roster = decode_decision(RosterChanged, record.body)
                self._tasks[roster.task].set_roster(frozenset(roster.devices), roster.now_s)
            case Kind.STARTED if not decided:
                self.start_mono_s = decode_decision(Started, record.body).start_mono_s
            case Kind.ALLOTTED if not decided:
                allotted = decode_decision(Allotted, record.body)
                self._tasks[allotted.task].allot(allotted)
            case Kind.ROUND_ENDED if not decided:
                ended = decode_decision(RoundEnded, record.body)
                self._tasks[ended.task].end_round(ended.now_s)
            case Kind.GRANTED if not decided:
                self._book.granted(decode_decision(Granted, record.body))

    def unfinished(self) -> dict[tuple[int, int], UpdateAssembly]:
        """Return by task and device the update that was being received at the end."""
        return {(task, device): own for (task, device, _), own in self._pending.items()}

    def _announce(self, record: Record) -> None:
        announced = Announced.decode(record.body)
        header = announced.header
        task, number = header.task_index, header.base_version
        held = {version.number: version for version in self._tasks[task].store.held()}
        base = held.get(number, self.bases.get((task, number)))
        self._forget(task, announced.device, header.update_id)
        if base is not None:
            self._pending[task, announced.device, header.update_id] = UpdateAssembly(
                header,
                base,
                device=announced.device,
                run_id=self._config.run_id,
                now_s=announced.now_s,
                position=record.position,
            )

    def _hold(self, record: Record) -> None:
        packet = parse_packet(bytes(record.body))
        key = (packet.task_index, packet.device, packet.update_id)
        assembly = self._pending.get(key)
        if assembly is None:
            # Of an update that was decided before the oldest announcement that is still there.
            return
        size = len(record.body)
        fits = self._memory_bytes + size <= self._config.upload_memory_bytes
        self._memory_bytes += size if fits else 0
        held = Held(record.position, size, packet if fits else None)
        assembly.hold(packet, held, assembly.started_s)

    def _apply(self, applied: Applied, *, decided: bool) -> None:
        assembly = self._forget(applied.task, applied.device, applied.update_id)
        if decided:
            return
        if assembly is None:
            raise CheckpointError(
                f"the journal lacks update {applied.update_id} of device {applied.device}"
            )
        task = self._tasks[applied.task]
        task.commit(assembly, task.combine(assembly, self._read), applied.now_s)
        self._book.uploaded(applied.device, applied.arrived_s)

    def _forget(self, task: int, device: int, update_id: int) -> UpdateAssembly | None:
        assembly = self._pending.pop((task, device, update_id), None)
        if assembly is not None:
            self._memory_bytes -= assembly.memory_bytes
        return assembly
