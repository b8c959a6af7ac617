"""Whole agents whose local periods a server schedules."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.device_agent.agent_harness import FakeWork, agent_config, agent_events, go, until
from tests.server.harness import (
    DIMENSION,
    F32,
    LAYOUT,
    SAMPLES,
    Running,
    initial_vector,
    logged,
    running,
)
from tests.server.test_period_desk import scheduled

from fadelab_agent.agent import Agent
from fadelab_agent.config import ComputeConfig
from fadelab_agent.period_work import PeriodOutcome, PeriodWork, Stretches
from fadelab_agent.work import Trained
from fadelab_proto.clock import SystemClock
from fadelab_proto.local_period import LocalPlan
from fadelab_proto.period_report import DriftReport, PeriodReport
from fadelab_server.scheduler.event_log import mix

ONE = {"learning_rate": 0.1, "proximal": 0.1, "steps": 3, "batch_size": 4}


class FakePeriodWork(FakeWork):
    """Periods that need no training."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.plans: list[LocalPlan] = []
        self.times: list[Stretches] = []

    def samples_after(self, *, idle_s: float, active_s: float) -> int:
        assert idle_s >= 0
        assert active_s >= 0
        return SAMPLES

    def train_period(
        self,
        base: F32,
        plan: LocalPlan,
        times: Stretches,
        *,
        update_number: int,
        probe_samples: int,
    ) -> PeriodOutcome:
        assert probe_samples == 8
        self.plans.append(plan)
        self.times.append(times)
        self.bases.append(base.copy())
        batch = min(plan.batch_size, SAMPLES)
        return PeriodOutcome(
            Trained(self.delta(update_number), plan.steps, batch, loss=0.5),
            SAMPLES,
            PeriodReport(0.5, 10.0, 2.0, 3.0, 1.5),
            (
                DriftReport(1.0, 1.1, times.idle_s, active=False),
                DriftReport(0.9, 1.0, times.compute_s, active=True),
            ),
        )


def agent(folder: Path, server: Running, works: Sequence[FakeWork], **changes: Any) -> Agent:
    config = agent_config(
        folder,
        server.port,
        error_memory=False,
        periods={"cycles_per_sample": [1000.0] * len(works)},
        compute={"capacitance_j_s2": 1e-18},
        **changes,
    )
    return Agent(config, works, SystemClock())


def spec(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.npy"
    np.save(path, initial_vector())
    return {"name": name, "dimension": DIMENSION, "layout_hash": LAYOUT, "initial": path}


def test_the_fake_is_what_an_agent_asks_for() -> None:
    assert isinstance(FakePeriodWork(), PeriodWork)
    assert not isinstance(FakeWork(), PeriodWork)


def test_a_device_does_what_it_is_told(tmp_path: Path) -> None:
    work = FakePeriodWork()
    models: list[F32] = []

    async def scenario() -> None:
        async with running(scheduled(tmp_path, 1)) as server:
            taking_part = asyncio.create_task(agent(tmp_path, server, [work]).run())
            server.federation.start(SystemClock().now_s())
            task = server.federation.tasks[0]
            await until(server, lambda: task.store.shown.number >= 3)
            server.federation.stop("enough")
            await taking_part
            models.extend(version.vector for version in task.store.held())

    go(scenario)
    for number in range(3):
        assert np.array_equal(work.bases[number], models[number])
        arrived = models[number] + work.delta(number + 1)
        assert np.array_equal(models[number + 1], mix(models[number], arrived, np.float32(0.6)))
    first = work.plans[0]
    assert (first.cpu_hz, first.batch_size, first.steps) == (1e5, 4, 3)
    assert work.times[0].compute_s == pytest.approx(1000 * 3 * 4 / 1e5)
    # The second training begins where the first ended, in both kinds of time.
    assert work.times[1].before_idle_s == work.times[0].idle_s
    assert work.times[1].before_active_s == work.times[0].compute_s
    ended = agent_events(tmp_path, "period_ended")
    for version, (event, plan) in enumerate(zip(ended, work.plans, strict=False)):
        assert event["task"] == "digits"
        assert (event["version"], event["steps"], event["cpu_hz"]) == (
            version,
            plan.steps,
            plan.cpu_hz,
        )
        compute = ComputeConfig(
            cycles_per_sample=1000.0, cpu_hz=plan.cpu_hz, capacitance_j_s2=1e-18
        )
        watts = compute.capacitance_j_s2 * compute.cpu_hz**3
        assert event["compute_j"] == pytest.approx(watts * event["compute_s"], rel=1e-3)
        assert event["uplink_bits"] == event["downlink_bits"] == 32 * DIMENSION
        assert event["uplink_s"] > 0
        assert event["compute_real_s"] >= 0
    course = [event["stage"] for event in agent_events(tmp_path, "stage")]
    once = ["idle", "downlink", "compute", "idle", "uplink"]
    assert course[:15] == 3 * once
    assert course[-1] == "none"


def test_who_has_no_energy_left_rests_until_the_end(tmp_path: Path) -> None:
    work = FakePeriodWork()

    async def scenario() -> None:
        # An upload is metered with some milliseconds of 200 mW, a training with 0.12 mJ.
        config = scheduled(tmp_path, 1, resources="fixed", energy_budget_j=1.3e-4)
        async with running(config) as server:
            taking_part = asyncio.create_task(agent(tmp_path, server, [work]).run())
            server.federation.start(SystemClock().now_s())
            task = server.federation.tasks[0]
            await until(server, lambda: task.store.shown.number == 1 and not task.roster)
            server.federation.stop("enough")
            await taking_part

    go(scenario)
    assert len(work.plans) == 1
    assert len(agent_events(tmp_path, "resting")) == 1
    assert agent_events(tmp_path, "stage")[-1]["stage"] == "none"


def test_tasks_of_one_device_compute_side_by_side(tmp_path: Path) -> None:
    names = ("digits", "more")
    works = [FakePeriodWork(name=name) for name in names]

    async def scenario() -> None:
        config = scheduled(
            tmp_path,
            1,
            {"tasks": [spec(tmp_path, name) for name in names]},
            tasks=[ONE, ONE],
            cycles_per_sample=[[1000.0, 1000.0]],
        )
        async with running(config) as server:
            taking_part = asyncio.create_task(agent(tmp_path, server, works).run())
            server.federation.start(SystemClock().now_s())
            tasks = server.federation.tasks
            await until(server, lambda: all(task.store.shown.number >= 2 for task in tasks))
            server.federation.stop("enough")
            await taking_part

    go(scenario)
    courses: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for event in agent_events(tmp_path, "stage"):
        courses[event["task"]].append((event["mono_s"], event["stage"]))
    assert set(courses) == set(names)
    computing = {
        name: [
            (begun_s, ended_s)
            for (begun_s, stage), (ended_s, _) in itertools.pairwise(course)
            if stage == "compute"
        ]
        for name, course in courses.items()
    }
    (first, *_), (second, *_) = computing.values()
    assert max(first[0], second[0]) < min(first[1], second[1])
    assert {event["task"] for event in logged(tmp_path, "scheduled")} == set(names)
