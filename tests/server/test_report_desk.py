"""The desk that devices report their updates to: who waits for what, and who is answered when."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.server.harness import FakeClock

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.events import EventLog
from fadelab_server.rounds.base import AllocationError, Grant, Report, UnderWay
from fadelab_server.rounds.desk import ReportDesk
from fadelab_server.signal import Signal

LONG_S = 10.0


@dataclass
class NotingAllocator:
    """Gives every device a power that tells how many decisions there were before."""

    wanted: tuple[str, ...] = ("bits",)
    decides_again: bool = False
    mute: frozenset[int] = frozenset()
    failure: str | None = None
    over: str | None = None
    decisions: list[tuple[int, set[int], dict[int, float]]] = field(default_factory=list)
    uploads: list[tuple[int, float]] = field(default_factory=list)
    closed: bool = False
    known: UnderWay | None = None
    reminded: int = 0
    news: Signal = field(default_factory=Signal)
    """Of decisions."""

    async def decide(
        self, version: int, reports: Mapping[int, Report], arrived: Mapping[int, float]
    ) -> Mapping[int, Grant]:
        if self.failure is not None:
            raise AllocationError(self.failure)
        self.decisions.append((version, set(reports), dict(arrived)))
        self.news.notify()
        power_w = float(len(self.decisions))
        return {
            device: Grant(0.0 if device in self.mute else power_w, 1e6, 2.0, {"share": 0.5})
            for device in reports
        }

    async def between_rounds(self) -> None:
        await asyncio.sleep(0)

    def under_way(self, version: int) -> UnderWay | None:
        return self.known

    async def again_in_force(self) -> None:
        self.reminded += 1
        await asyncio.sleep(0)

    def uploaded(self, device: int, arrived_s: float) -> None:
        self.uploads.append((device, arrived_s))

    def ended(self, version: int) -> str | None:
        return self.over

    async def close(self) -> None:
        self.closed = True


class Counter:
    """A desk of two devices and what it does to those around it."""

    def __init__(self, allocator: NotingAllocator, log: EventLog, *, takes_silence: bool) -> None:
        self.roster = frozenset({0, 1})
        self.version = 0
        self.stops: list[str] = []
        self.stopped = asyncio.Event()
        self.excused: list[frozenset[int]] = []
        self.desk = ReportDesk(
            allocator,
            roster=lambda: self.roster,
            newest=lambda: self.version,
            arrived=lambda device: 0.25,
            takes_silence=takes_silence,
            log=log,
            stop=self.stop,
            excused=lambda: self.excused.append(self.desk.silenced),
        )

    def ask(self, device: int, **numbers: float) -> "asyncio.Task[pb.UpdateAllocation]":
        request = pb.UpdateReport(
            update_id=1, base_version=self.version, numbers=numbers or {"bits": 100.0}
        )
        return asyncio.create_task(self.desk.report(request, device))

    def stop(self, reason: str) -> None:
        self.stops.append(reason)
        self.stopped.set()

    def publish(self) -> None:
        self.version += 1
        self.desk.published(self.version)


def at_the_desk(
    folder: Path,
    allocator: NotingAllocator,
    scenario: Callable[[Counter], Awaitable[None]],
    *,
    takes_silence: bool = False,
) -> None:
    async def main() -> None:
        with EventLog(folder, "server", "0", FakeClock()) as log:
            counter = Counter(allocator, log, takes_silence=takes_silence)
            await asyncio.wait_for(scenario(counter), LONG_S)
            await counter.desk.close()
        assert allocator.closed

    asyncio.run(main())


def test_nobody_is_answered_before_all_have_reported(tmp_path: Path) -> None:
    allocator = NotingAllocator()

    async def scenario(counter: Counter) -> None:
        first = counter.ask(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not first.done()
        assert allocator.decisions == []
        answers = await asyncio.gather(first, counter.ask(1))
        assert [answer.status for answer in answers] == [pb.ALLOCATION_STATUS_GRANTED] * 2
        assert answers[0].power_w == 1.0
        assert dict(answers[0].numbers) == {"share": 0.5}
        # Asking again changes nothing.
        assert (await counter.ask(0)).power_w == 1.0
        assert allocator.decisions == [(0, {0, 1}, {})]

    at_the_desk(tmp_path, allocator, scenario)


def test_a_device_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    allocator = NotingAllocator()

    async def scenario(counter: Counter) -> None:
        waiting = counter.ask(1)
        await asyncio.sleep(0)
        counter.roster = frozenset({1})
        counter.desk.roster_changed()
        assert (await waiting).status == pb.ALLOCATION_STATUS_GRANTED
        assert allocator.decisions == [(0, {1}, {})]

    at_the_desk(tmp_path, allocator, scenario)


def test_a_device_that_comes_late_has_the_round_decided_anew(tmp_path: Path) -> None:
    allocator = NotingAllocator()

    async def scenario(counter: Counter) -> None:
        counter.roster = frozenset({0})
        assert (await counter.ask(0)).power_w == 1.0
        counter.roster = frozenset({0, 1})
        assert (await counter.ask(1)).power_w == 2.0
        assert allocator.decisions[1] == (0, {0, 1}, {0: 0.25})

    at_the_desk(tmp_path, allocator, scenario)


def test_reports_of_a_round_that_is_over_say_so(tmp_path: Path) -> None:
    allocator = NotingAllocator()

    async def scenario(counter: Counter) -> None:
        waiting = counter.ask(0)
        await asyncio.sleep(0)
        counter.publish()
        assert (await waiting).status == pb.ALLOCATION_STATUS_ROUND_OVER
        counter.version = 0
        late = counter.ask(0)
        counter.version = 1
        assert (await late).status == pb.ALLOCATION_STATUS_ROUND_OVER
        assert allocator.decisions == []
        await asyncio.gather(counter.ask(0), counter.ask(1))
        assert allocator.decisions == [(1, {0, 1}, {})]

    at_the_desk(tmp_path, allocator, scenario)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({"words": 1.0}, "lacks bits"),
        ({"bits": math.nan}, "bits must be finite"),
        ({"bits": -1.0}, "bits must be finite"),
        ({"bits": 1.0} | {f"n{number}": 0.0 for number in range(64)}, "at most 64"),
    ],
)
def test_reports_without_sense_are_refused(
    tmp_path: Path, numbers: dict[str, float], reason: str
) -> None:
    async def scenario(counter: Counter) -> None:
        answer = await counter.ask(0, **numbers)
        assert answer.status == pb.ALLOCATION_STATUS_REFUSED_REPORT
        assert reason in answer.reason

    at_the_desk(tmp_path, NotingAllocator(), scenario)


@pytest.mark.parametrize("takes_silence", [False, True])
def test_rounds_do_not_wait_for_the_silenced(tmp_path: Path, takes_silence: bool) -> None:
    allocator = NotingAllocator(mute=frozenset({1}))

    async def scenario(counter: Counter) -> None:
        answers = await asyncio.gather(counter.ask(0), counter.ask(1))
        assert answers[1].status == pb.ALLOCATION_STATUS_SILENT
        assert counter.excused == ([] if takes_silence else [frozenset({1})])
        counter.publish()
        assert counter.excused == ([] if takes_silence else [frozenset({1}), frozenset()])

    at_the_desk(tmp_path, allocator, scenario, takes_silence=takes_silence)


@pytest.mark.parametrize("again", [False, True])
def test_others_get_new_powers_when_one_has_finished(tmp_path: Path, again: bool) -> None:
    allocator = NotingAllocator(decides_again=again)

    async def scenario(counter: Counter) -> None:
        await asyncio.gather(counter.ask(0), counter.ask(1))
        counter.desk.finished(0, 12.5)
        await allocator.news.changed_since(again)
        assert allocator.uploads == [(0, 12.5)]
        # Nobody is left to decide for.
        counter.desk.finished(1, 13.0)
        for _ in range(5):
            await asyncio.sleep(0)
        expected = [{}, {0: 1.0, 1: 0.25}] if again else [{}]
        assert [arrived for _, _, arrived in allocator.decisions] == expected

    at_the_desk(tmp_path, allocator, scenario)


def test_the_run_ends_where_nothing_can_be_allocated_or_a_budget_is_spent(tmp_path: Path) -> None:
    async def fails(counter: Counter) -> None:
        waiting = [counter.ask(0), counter.ask(1)]
        await counter.stopped.wait()
        assert counter.stops == ["no radio"]
        counter.desk.end()
        for answer in await asyncio.gather(*waiting):
            assert answer.status == pb.ALLOCATION_STATUS_ROUND_OVER

    at_the_desk(tmp_path / "a", NotingAllocator(failure="no radio"), fails)

    async def is_over(counter: Counter) -> None:
        counter.publish()
        assert counter.stops == ["spent"]

    at_the_desk(tmp_path / "b", NotingAllocator(over="spent"), is_over)


@pytest.mark.parametrize("again", [False, True])
def test_a_desk_goes_on_with_the_round_of_a_server_that_was_killed(
    tmp_path: Path, again: bool
) -> None:
    reports = {device: Report(device, 1, 0, {"bits": 100.0}) for device in (0, 1, 2)}
    grants = {0: Grant(1.0, 1e6, 2.0), 1: Grant(3.0, 1e6, 2.0), 2: Grant(0.0, 1e6, 0.0)}
    known = UnderWay(reports, grants, frozenset({0}))
    allocator = NotingAllocator(decides_again=again, known=known)

    async def scenario(counter: Counter) -> None:
        counter.roster = frozenset({0, 1, 2})
        counter.desk.settle()
        counter.desk.resume()
        assert counter.desk.silenced == {2}
        assert (await counter.ask(1)).power_w == 3.0
        assert (await counter.ask(2)).status == pb.ALLOCATION_STATUS_SILENT
        assert allocator.reminded == 1
        assert allocator.decisions == []
        counter.desk.finished(1, 12.5)
        assert allocator.uploads == [(1, 12.5)]
        counter.publish()
        assert counter.desk.silenced == frozenset()

    at_the_desk(tmp_path, allocator, scenario)


def test_a_budget_that_was_spent_before_a_restart_ends_the_run(tmp_path: Path) -> None:
    async def scenario(counter: Counter) -> None:
        counter.desk.resume()
        assert counter.stops == ["spent"]

    at_the_desk(tmp_path, NotingAllocator(over="spent"), scenario)
