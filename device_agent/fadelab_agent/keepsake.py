"""Keeping the update that is under way, and finding it again, without stalling the event loop."""

import asyncio

from fadelab_agent.membership import Assignment
from fadelab_agent.spool import Spool, Spooled, SpoolError
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog


class Keepsake:
    """One task's spool, or none, with everything that becomes of it in the event log.

    Args:
        spool: where updates are kept; None if a restarted agent shall begin anew.

    """

    def __init__(self, spool: Spool | None, *, task: str, clock: Clock, log: EventLog) -> None:
        self._spool = spool
        self._task = task
        self._clock = clock
        self._log = log

    async def keep(self, spooled: Spooled) -> None:
        """Return when the update is durable.

        If it cannot be, the event log says so and the update is sent all the same: what is lost if
        the agent dies now is one update.
        """
        if self._spool is None:
            return
        number = spooled.update.header.update_id
        begun_s = self._clock.now_s()
        try:
            size = await asyncio.to_thread(self._spool.write, spooled)
        except SpoolError as error:
            self._log.write("spool_failed", task=self._task, update_id=number, cause=str(error))
            return
        took_s = round(self._clock.now_s() - begun_s, 6)
        self._log.write(
            "update_spooled", task=self._task, update_id=number, bytes=size, took_s=took_s
        )

    async def left(self, terms: Assignment) -> Spooled | None:
        """Return the update that an earlier process of this device had under way, if any.

        Whatever cannot be used is set aside, and the event log says why.
        """
        if self._spool is None:
            return None
        try:
            spooled = await asyncio.to_thread(self._spool.read)
            if spooled is not None:
                _check(spooled, terms)
        except SpoolError as error:
            self._spool.set_aside()
            self._log.write("spool_set_aside", task=self._task, cause=str(error))
            return None
        return spooled


def _check(spooled: Spooled, terms: Assignment) -> None:
    header = spooled.update.header
    if header.update_id < terms.last_update:
        raise SpoolError(
            f"it holds update {header.update_id}, and the server has update {terms.last_update}"
        )
    if header.task_index != terms.task_index:
        raise SpoolError("the server counts its tasks in another order")
