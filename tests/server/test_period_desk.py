"""Local periods on a server: who is told what when, what the log says, what it leads to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.harness import (
    DIMENSION,
    SAMPLES,
    Device,
    FakeClock,
    Running,
    initial_vector,
    logged,
    make_config,
    newest,
    running,
)

from fadelab_proto import federation_pb2 as pb
from fadelab_proto import schedule_pb2, schedule_pb2_grpc
from fadelab_proto.events import read_events
from fadelab_server.config import ServerConfig
from fadelab_server.periods.reproduction import journalled_updates, reproduce
from fadelab_server.scheduler.event_log import EventLogError
from fadelab_server.scheduler.log_lines import task_log_of

GO, REST = schedule_pb2.PERIOD_STATUS_GO, schedule_pb2.PERIOD_STATUS_REST
OVER, REFUSED = schedule_pb2.PERIOD_STATUS_OVER, schedule_pb2.PERIOD_STATUS_REFUSED
CAP = 2


def scheduled(
    folder: Path, devices: int, settings: Mapping[str, Any] = {}, **changes: Any
) -> ServerConfig:
    """Return a configuration with ``settings`` of the server and ``changes`` of its scheduling."""
    scheduling: dict[str, Any] = {
        "staleness_cap": CAP,
        "learning_weight": 1.0,
        "window_s": 100.0,
        "cpu_hz": [1e4, 1e6],
        "steps": [2, 6],
        "tasks": [{"learning_rate": 0.1, "proximal": 0.1, "steps": 3, "batch_size": 4}],
        "first_cpu_hz": 1e5,
        "capacitance_j_s2": [1e-18] * devices,
        "cycles_per_sample": [[1000.0]] * devices,
    }
    scheduling |= changes
    rounds = scheduling.get("schedule") == "rounds"
    staleness = CAP if scheduling.get("schedule", "rolling") == "rolling" else None
    rule = {"kind": "fedavg"} if rounds else {"kind": "dma_fl", "max_staleness": staleness}
    return make_config(
        folder,
        devices=devices,
        aggregation=rule,
        scheduling=scheduling,
        journal_keeps=True,
        **settings,
    )


class Worker:
    """A device that does what it is told, with made-up updates and figures."""

    def __init__(self, server: Running, device: Device) -> None:
        self.device = device
        self.server = server
        channel = server.connect(f"127.0.0.1:{server.port}")
        self._stub: Any = schedule_pb2_grpc.ScheduleStub(channel)
        self.rng = np.random.default_rng(device.number)
        self.update_id = 0
        self.plans: list[schedule_pb2.PeriodPlan] = []

    async def ask(self, update_id: int | None = None) -> schedule_pb2.PeriodPlan:
        if update_id is None:
            self.update_id += 1
        plan: schedule_pb2.PeriodPlan = await self._stub.NextPeriod(
            schedule_pb2.PeriodRequest(
                session=self.device.session,
                update_id=self.update_id if update_id is None else update_id,
                samples=SAMPLES,
                upload_s=0.2 * (self.update_id > 1),
                upload_j=0.05 * (self.update_id > 1),
            )
        )
        self.plans.append(plan)
        return plan

    async def report(self, **changes: Any) -> schedule_pb2.Turn:
        figures: dict[str, Any] = {
            "session": self.device.session,
            "update_id": self.update_id,
            "samples": SAMPLES,
            "variability": 0.5,
            "data_variance": 10.0,
            "gradient_sq": 2.0,
            "regularised_gradient_sq": 3.0,
            "smoothness": 1.5,
            "drift": [
                schedule_pb2.DriftFigures(loss_before=1.0, loss_after=1.1, elapsed_s=2.0),
                schedule_pb2.DriftFigures(
                    loss_before=0.9, loss_after=1.0, elapsed_s=1.0, active=True
                ),
            ],
            "download_s": 0.3,
            "download_j": 0.03,
            "compute_j": 0.01,
        }
        turn: schedule_pb2.Turn = await self._stub.ReportPeriod(
            schedule_pb2.PeriodFigures(**figures | changes)
        )
        return turn

    async def send(self, version: int) -> pb.UploadReply:
        value = float(self.rng.normal())
        return await self.device.send(
            self.device.update(value, update_id=self.update_id, base_version=version)
        )

    async def period(self) -> schedule_pb2.PeriodPlan:
        plan = await self.ask()
        if plan.status != GO:
            return plan
        # Trainings take their time, each another one.
        for _ in range(int(self.rng.integers(0, 6))):
            await asyncio.sleep(0)
        if (await self.report()).status == GO:
            reply = await self.send(plan.version)
            assert reply.status == pb.UPLOAD_STATUS_COMPLETE, reply.reason
        return plan

    async def work(self) -> None:
        while (await self.period()).status == GO:
            pass


@asynccontextmanager
async def scene(
    folder: Path, devices: int, **changes: Any
) -> AsyncIterator[tuple[Running, list[Worker], FakeClock]]:
    clock = FakeClock()
    async with running(scheduled(folder, devices, **changes), clock) as server:
        workers = []
        for number in range(devices):
            device = server.device(number)
            await device.join()
            workers.append(Worker(server, device))
        server.federation.start(clock.now_s())
        yield server, workers, clock


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def until_version(server: Running, version: int) -> None:
    seen = -1
    while server.federation.tasks[0].store.shown.number < version:
        seen = await server.federation.changed.changed_since(seen)


@pytest.mark.parametrize("schedule", ["rolling", "at_once"])
def test_a_run_keeps_its_cap_and_its_log_leads_to_its_models(tmp_path: Path, schedule: str) -> None:
    found: list[Any] = []

    async def scenario() -> None:
        async with scene(tmp_path, 5, schedule=schedule) as (server, workers, _):
            jobs = [asyncio.create_task(worker.work()) for worker in workers]
            await until_version(server, 25)
            server.federation.stop("enough")
            await asyncio.gather(*jobs, return_exceptions=True)
            await server.federation.make_durable()
            found.append((newest(server).copy(), server.federation.tasks[0].store.shown.number))

    play(scenario)
    ((vector, shown),) = found
    lines = read_events(tmp_path / "events" / "server-0.jsonl")
    log = task_log_of(lines, task="digits", devices=5)
    if schedule == "rolling":
        assert max(upload.staleness for upload in log.uploads) <= CAP
    assert len({upload.device for upload in log.uploads}) > 1
    journal = tmp_path / "checkpoint" / "journal"
    again = reproduce(
        lines, journalled_updates(journal, 0), initial_vector(), task="digits", devices=5
    )
    assert again.different == ()
    assert again.versions == shown >= 25
    assert np.array_equal(again.newest, vector)
    # A log that is one line short leads nowhere.
    short = [line for line in lines if line.get("aggregation") != 7]
    with pytest.raises(EventLogError):
        reproduce(short, journalled_updates(journal, 0), initial_vector(), task="digits", devices=5)


def test_plans_are_the_experiments_first_and_then_within_limits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, 1) as (_, (worker,), _):
            first = await worker.period()
            assert (first.cpu_hz, first.batch_size, first.steps, first.idle_s) == (1e5, 4, 3, 0)
            second = await worker.period()
            assert second.status == GO
            assert second.version == 1
            assert 1e4 <= second.cpu_hz <= 1e6
            assert 2 <= second.steps <= 6
            assert 1 <= second.batch_size <= SAMPLES

    play(scenario)
    told = logged(tmp_path, "scheduled")
    assert [(line["version"], line["deadline_version"]) for line in told] == [(0, 2), (1, 3)]
    bound = logged(tmp_path, "bound")[0]
    assert bound["task"] == "digits"
    assert set(bound["terms"]) == set("abcdef")
    assert bound["total"] == pytest.approx(sum(bound["terms"].values()))
    # One device alone is like itself.
    assert bound["terms"]["b"] == 0


def test_asking_again_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, 1) as (server, (worker,), _):
            plan = await worker.ask()
            assert await worker.ask(update_id=1) == plan
            assert (await worker.report()).status == GO
            assert (await worker.report()).status == GO
            assert (await worker.send(plan.version)).status == pb.UPLOAD_STATUS_COMPLETE
            await until_version(server, 1)

    play(scenario)
    assert len(logged(tmp_path, "schedule_received")) == 1
    assert logged(tmp_path, "schedule_abandoned") == []


def test_nobody_uploads_out_of_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, 2) as (_, (worker, other), _):
            plan = await worker.ask()
            reply = await worker.send(plan.version)
            assert reply.status == pb.UPLOAD_STATUS_REFUSED_RULE
            assert "not the turn of device 0" in reply.reason
            other.update_id = 1
            assert (await other.report()).status == OVER

    play(scenario)


def test_a_device_that_leaves_holds_nobody_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, 2, staleness_cap=0) as (server, (worker, other), _):
            stream = worker.device.directives()
            await stream.read()
            assert (await worker.ask()).status == GO
            waiting = asyncio.create_task(other.ask())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            stream.cancel()
            assert (await waiting).status == GO
            assert (await worker.report()).status == OVER
            assert server.federation.tasks[0].roster == {1}

    play(scenario)
    (given_up,) = logged(tmp_path, "schedule_abandoned")
    assert (given_up["device"], given_up["version"], given_up["task"]) == (0, 0, "digits")


def test_who_has_spent_its_energy_rests(tmp_path: Path) -> None:
    async def scenario() -> None:
        # Computing is 1000 * 3 * 4 cycles at 1e5 Hz and 1e-18: 0.12 mJ; an upload takes 50 mJ.
        async with scene(tmp_path, 1, resources="fixed", energy_budget_j=0.14) as (_, (one,), _):
            plans = [await one.period() for _ in range(3)]
            assert [plan.status for plan in plans] == [GO, GO, REST]

    play(scenario)


def test_in_rounds_a_device_waits_for_the_next_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        changes = {"schedule": "rounds", "resources": "fixed"}
        async with scene(tmp_path, 2, **changes) as (server, (one, other), _):
            assert (await one.period()).version == 0
            waiting = asyncio.create_task(one.ask())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert (await other.period()).version == 0
            assert (await waiting).version == 1
            assert server.federation.tasks[0].store.shown.number == 1

    play(scenario)
    assert logged(tmp_path, "schedule_received") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"variability": float("nan")},
        {"data_variance": -1.0},
        {"gradient_sq": 1e30},
        {"drift": []},
        {"drift": [schedule_pb2.DriftFigures(loss_before=1.0, loss_after=1.0)]},
        {"compute_j": float("inf")},
        {"task_index": 1},
    ],
)
def test_figures_that_no_period_has_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, 1) as (_, (worker,), _):
            await worker.ask()
            assert (await worker.report(**changes)).status == REFUSED

    play(scenario)


def test_strangers_are_told_to_join(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, 1) as (_, (worker,), _):
            worker.device.session = 1
            assert (await worker.ask()).status == schedule_pb2.PERIOD_STATUS_UNKNOWN_SESSION
            assert (await worker.report()).status == schedule_pb2.PERIOD_STATUS_UNKNOWN_SESSION

    play(scenario)
    assert logged(tmp_path, "scheduled") == []


def test_the_end_of_the_run_answers_everybody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, 2, staleness_cap=0) as (server, (worker, other), _):
            await worker.ask()
            waiting = asyncio.create_task(other.ask())
            await asyncio.sleep(0.05)
            server.federation.stop("enough")
            assert (await waiting).status == OVER

    play(scenario)


def test_a_restarted_server_gives_up_what_was_under_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, 1) as (_, (worker,), _):
            await worker.period()
            await worker.ask()
        clock = FakeClock()
        async with running(scheduled(tmp_path, 1), clock, resumes=True) as server:
            device = server.device(0)
            await device.join()
            worker = Worker(server, device)
            worker.update_id = 1
            assert (await worker.period()).version == 1
            await until_version(server, 2)

    play(scenario)
    lines = read_events(tmp_path / "events" / "server-0.jsonl")
    log = task_log_of(lines, task="digits", devices=1)
    assert [upload.version for upload in log.uploads] == [0, 1]
    assert len(logged(tmp_path, "schedule_abandoned")) == 1


def test_scheduling_must_fit_the_server(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not for 2 devices and 1 tasks"):
        make_config(
            tmp_path,
            aggregation={"kind": "dma_fl"},
            scheduling=scheduled(tmp_path, 3).scheduling,
        )
    with pytest.raises(ValueError, match="belong together"):
        make_config(tmp_path, aggregation={"kind": "dma_fl"})
    assert scheduled(tmp_path, 3).tasks[0].dimension == DIMENSION
