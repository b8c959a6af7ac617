"""Where devices report their updates before they upload them, and hear what they are given."""

import asyncio
import math
from collections.abc import Callable, Mapping

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.events import EventLog
from fadelab_server.rounds.base import AllocationError, Allocator, Grant, Report
from fadelab_server.signal import Signal

_MOST_NUMBERS = 64


class ReportDesk:
    """Collects one task's reports of a round and asks the allocator when all are there.

    Args:
        allocator: decides.
        roster: returns the devices that must have reported before the round is decided.
        newest: returns the version that the round trains from.
        arrived: returns the share of a device's update that has arrived.
        takes_silence: whether the aggregation rule counts who sends nothing; if not, rounds do not
            wait for them.
        log: is told of reports that are refused.
        stop: ends the run, for a reason.
        excused: called when :attr:`silenced` has changed.

    """

    def __init__(
        self,
        allocator: Allocator,
        *,
        roster: Callable[[], frozenset[int]],
        newest: Callable[[], int],
        arrived: Callable[[int], float],
        takes_silence: bool,
        log: EventLog,
        stop: Callable[[str], None],
        excused: Callable[[], None],
    ) -> None:
        self._allocator = allocator
        self._roster = roster
        self._newest = newest
        self._arrived = arrived
        self._takes_silence = takes_silence
        self._log = log
        self._stop = stop
        self._excused = excused
        self.silenced: frozenset[int] = frozenset()
        """Devices that the round does not wait for: they were given no power."""
        self._news = Signal()
        self._version = -1
        self._reports: dict[int, Report] = {}
        self._grants: dict[int, Grant] = {}
        self._finished: set[int] = set()
        self._stale = False
        """Whether what was decided has to be decided anew."""
        self._deciding: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        """What happens between rounds."""
        self._closed = False

    async def report(self, request: pb.UpdateReport, device: int) -> pb.UpdateAllocation:
        """Take a report; return what the device is given once the round is decided."""
        wrong = self._wrong(request)
        if wrong is not None:
            self._log.write("report_refused", device=device, reason=wrong)
            return refused_report(wrong)
        version = request.base_version
        if version == self._newest():
            self._enter(version)
            self._reports[device] = Report(
                device, request.update_id, version, dict(request.numbers)
            )
            self._look()
        seen = self._news.count
        while self._version == version == self._newest() and not self._closed:
            if (grant := self._grants.get(device)) is not None:
                return _answer(grant)
            seen = await self._news.changed_since(seen)
        return pb.UpdateAllocation(
            status=pb.ALLOCATION_STATUS_ROUND_OVER,
            reason=f"the round of version {version} is over",
        )

    def _wrong(self, request: pb.UpdateReport) -> str | None:
        numbers = request.numbers
        missing = [name for name in self._allocator.wanted if name not in numbers]
        if missing:
            return f"the report lacks {', '.join(missing)}"
        if len(numbers) > _MOST_NUMBERS:
            return f"the report has {len(numbers)} numbers; at most {_MOST_NUMBERS} are allowed"
        bad = [name for name, value in numbers.items() if not 0 <= value < math.inf]
        return f"{bad[0]} must be finite and not negative" if bad else None

    def _enter(self, version: int) -> None:
        if version == self._version:
            return
        self._version = version
        self._reports, self._grants, self._finished = {}, {}, set()
        self._stale = False
        self._news.notify()

    def _excuse(self, silenced: frozenset[int]) -> None:
        if not self._takes_silence and silenced != self.silenced:
            self.silenced = silenced
            self._excused()

    def _excuse_mute(self, grants: Mapping[int, Grant]) -> None:
        mute = frozenset(device for device, grant in grants.items() if not grant.power_w)
        self._excuse(mute - self._finished)

    def roster_changed(self) -> None:
        """Look whether everybody who is still there has reported."""
        self._look()

    def finished(self, device: int, arrived_s: float) -> None:
        """Note that the last packet of a device's update of this round has come."""
        if device in self._reports:
            self._finished.add(device)
            self._allocator.uploaded(device, arrived_s)
            self._stale = self._allocator.decides_again and bool(self._grants)
        self._look()

    def resume(self) -> None:
        """Go on with the round that was under way when an earlier server was killed."""
        version = self._newest()
        reason = self._allocator.ended(version)
        if reason is not None:
            self._stop(reason)
        known = self._allocator.under_way(version)
        if known is not None:
            self._enter(version)
            self._reports, self._grants = dict(known.reports), dict(known.grants)
            self._finished = set(known.finished)
            self._excuse_mute(known.grants)

    def published(self, version: int) -> None:
        """Note that a round has made this version; end the run where the allocator says so."""
        self._news.notify()
        self._excuse(frozenset())
        reason = self._allocator.ended(version)
        if reason is not None:
            self._stop(reason)
        else:
            self.settle()

    def settle(self) -> None:
        """Make ready for downloads and reports, before the first round and after each."""
        if not self._closed and self._settling is None:
            self._settling = asyncio.create_task(self._between_rounds())

    async def _between_rounds(self) -> None:
        try:
            if self._grants and self._version == self._newest():
                await self._allocator.again_in_force()  # after a restart
            else:
                await self._allocator.between_rounds()
        except AllocationError as error:
            self._fail(error)
        finally:
            self._settling = None
        self._look()

    def _fail(self, error: AllocationError) -> None:
        self._log.write("allocation_failed", reason=str(error))
        self._stop(str(error))

    def end(self) -> None:
        """Answer all who wait: the run is over."""
        self._closed = True
        self._news.notify()

    async def close(self) -> None:
        """End what is under way."""
        self.end()
        tasks = [task for task in (self._deciding, self._settling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._allocator.close()

    def _look(self) -> None:
        """Have the round decided if it can be and is not."""
        waiting = self._reports.keys() - self._grants.keys() - self._finished
        sending = self._reports.keys() - self._finished
        due = bool(waiting) or (self._stale and bool(sending))
        busy = self._deciding is not None or self._settling is not None
        if self._closed or busy or not due:
            return
        if self._version == self._newest() and self._roster() <= self._reports.keys():
            self._deciding = asyncio.create_task(self._decide())

    async def _decide(self) -> None:
        version, reports = self._version, dict(self._reports)
        self._stale = False
        arrived = {
            device: 1.0 if device in self._finished else self._arrived(device)
            for device in reports
            if device in self._grants
        }
        try:
            grants = await self._allocator.decide(version, reports, arrived)
        except AllocationError as error:
            self._fail(error)
            return
        finally:
            self._deciding = None
        if version == self._version:
            self._grants.update(grants)
            self._news.notify()
            self._excuse_mute(grants)
        self._look()


def _answer(grant: Grant) -> pb.UpdateAllocation:
    status = pb.ALLOCATION_STATUS_GRANTED if grant.power_w else pb.ALLOCATION_STATUS_SILENT
    return pb.UpdateAllocation(
        status=status,
        power_w=grant.power_w,
        rate_bps=grant.rate_bps,
        upload_s=grant.upload_s,
        numbers=dict(grant.numbers),
    )


def refused_report(reason: str) -> pb.UpdateAllocation:
    """Return the answer to a report that the server does not want."""
    return pb.UpdateAllocation(status=pb.ALLOCATION_STATUS_REFUSED_REPORT, reason=reason)


class NoDesk:
    """Stands where a server allocates nothing: devices upload as they like."""

    silenced: frozenset[int] = frozenset()

    async def report(self, request: pb.UpdateReport, device: int) -> pb.UpdateAllocation:  # noqa: ARG002
        """Refuse a report."""
        return refused_report("this server allocates nothing")

    def roster_changed(self) -> None:
        """Do nothing: nobody waits here."""

    def finished(self, device: int, arrived_s: float) -> None:
        """Do nothing."""

    def published(self, version: int) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""

    def settle(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""
