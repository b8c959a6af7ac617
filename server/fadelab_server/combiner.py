"""Handing updates to their aggregation rules, one after the other, away from the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fadelab_proto.clock import Clock
from fadelab_proto.codecs import CodecError
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.journal.records import Applied as AppliedRecord
from fadelab_server.journal.records import Dropped
from fadelab_server.state_keeper import StateKeeper
from fadelab_server.task_state import Applied, ContributionRefusedError, TaskState


class Combined(NamedTuple):
    """An update that a rule has taken."""

    applied: Applied
    end: int
    """Position of the journal up to which all that led to it lies."""


_Outcome = Combined | Exception
_IN_PLACE_BYTES = 512 << 10
"""An update of this size takes the event loop some milliseconds at most."""


class Combiner:
    """Decodes updates and hands them to the rules, one after the other.

    Large ones in a thread. Small ones in place, with a turn for the event loop after each: Python
    runs one thread at a time, and every array operation of another thread waits for the loop to
    let go and then the loop for it, which takes longer than the work itself.

    Args:
        tasks: their states.
        keeper: the journal; an update leaves the unfinished ones when it is handed over.
        clock: tells when an update was taken.
        admit: called in the event loop when an update's turn has come; raises
            :class:`ContributionRefusedError` if it must not be taken.

    """

    def __init__(
        self,
        tasks: Sequence[TaskState],
        keeper: StateKeeper,
        clock: Clock,
        admit: Callable[[UpdateAssembly], None],
    ) -> None:
        self.turn = asyncio.Lock()
        """Held by whoever changes a task."""
        self._tasks = tasks
        self._keeper = keeper
        self._clock = clock
        self._admit = admit
        self._waiting: dict[UpdateAssembly, asyncio.Future[_Outcome]] = {}
        self._work: asyncio.Task[None] | None = None

    async def combine(self, assembly: UpdateAssembly) -> _Outcome:
        """Hand over an update; return what became of it, which is not durable yet.

        Returns:
            What the rule made of it, or why it was not taken: a :class:`ContributionRefusedError`,
            a CodecError if a packet cannot be decoded, a CheckpointError if the journal takes
            nothing any more.

        Raises:
            ContributionRefusedError: if it was not admitted.

        """
        done = self._waiting[assembly] = asyncio.get_running_loop().create_future()
        if self._work is None:
            self._work = asyncio.create_task(self._work_off())
        outcome: _Outcome = await done
        return outcome

    async def _work_off(self) -> None:
        while self._waiting:
            async with self.turn:
                assembly, done = next(iter(self._waiting.items()))
                del self._waiting[assembly]
                if not self._admitted(assembly, done):
                    continue
                if self._is_small(assembly):
                    outcome = self._outcome(assembly)
                else:
                    outcome = await asyncio.to_thread(self._outcome, assembly)
            if not done.done():  # nobody waits any more once the server ends
                done.set_result(outcome)
            await asyncio.sleep(0)
        self._work = None

    def _admitted(self, assembly: UpdateAssembly, done: asyncio.Future[_Outcome]) -> bool:
        try:
            self._admit(assembly)
        except ContributionRefusedError as error:
            done.set_exception(error)
            return False
        # From here on no stream adds to it.
        self._keeper.forget((assembly.header.task_index, assembly.device))
        return True

    def _is_small(self, assembly: UpdateAssembly) -> bool:
        rule, header = self._tasks[assembly.header.task_index].rule, assembly.header
        model_bytes = 0 if rule.incremental else 4 * header.dimension
        return assembly.in_memory and header.payload_bytes + model_bytes <= _IN_PLACE_BYTES

    def _outcome(self, assembly: UpdateAssembly) -> _Outcome:
        try:
            return self._take(assembly)
        except Exception as error:  # noqa: BLE001 (whoever waits for this update gets it)
            return error

    def _take(self, assembly: UpdateAssembly) -> Combined:
        header = assembly.header
        index, device = header.task_index, assembly.device
        task = self._tasks[index]
        try:
            # The update before it may have ended the round.
            task.check(device=device, base_version=header.base_version)
            vector = task.combine(assembly, self._keeper.read)
        except (ContributionRefusedError, CodecError):
            self._keeper.decide(Dropped(index, device, header.update_id))
            raise
        now_s = self._clock.now_s()
        applied = task.commit(assembly, vector, now_s)
        end = self._keeper.decide(AppliedRecord(index, device, header.update_id, now_s))
        return Combined(applied, end)
