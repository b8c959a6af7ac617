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
_Waiting = tuple[UpdateAssembly, asyncio.Future[_Outcome]]


class Combiner:
    """Decodes updates and hands them to the rules in a thread.

    Whatever has come while the thread was busy is its next load: when many updates come, thread and
    event loop need not wait for each other after each of them.

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
        loop = asyncio.get_running_loop()
        while self._waiting:
            async with self.turn:
                load, self._waiting = self._waiting, {}
                admitted = [pair for pair in load.items() if self._admitted(*pair)]
                await asyncio.to_thread(self._take_all, admitted, loop)
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

    def _take_all(self, admitted: Sequence[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        """Take one after the other; who waits for the first does not wait for the last."""
        for assembly, done in admitted:
            outcome: _Outcome
            try:
                outcome = self._take(assembly)
            except Exception as error:  # noqa: BLE001 (whoever waits for this update gets it)
                outcome = error
            loop.call_soon_threadsafe(_tell, done, outcome)

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


def _tell(done: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
    if not done.done():  # nobody waits any more once the server ends
        done.set_result(outcome)
