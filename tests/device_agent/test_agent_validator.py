"""The validator: every version's reading reaches the server, in order."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.device_agent.agent_harness import FakeWork, go
from tests.server.harness import (
    DIMENSION,
    Running,
    initial_vector,
    logged,
    make_config,
    running,
)

from fadelab_agent.validator import Validator
from fadelab_agent.work import Trained
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events
from fadelab_server.model_store import ModelStore, Version
from fadelab_server.services import OperatorService


async def validate(folder: Path, *, work: FakeWork | None = None, task_index: int = 0) -> None:
    clock = SystemClock()
    with EventLog(folder / "events", "validator", "0", clock) as log:
        validator = Validator(
            work or FakeWork(), task_index, socket=folder / "operator", clock=clock, log=log
        )
        await validator.run()


def publish(server: Running, versions: int) -> None:
    store = server.federation.tasks[0].store
    for _ in range(versions):
        number = store.newest.number + 1
        store.show(store.publish(np.full(DIMENSION, number, dtype=np.float32), 0.0))
    server.federation.changed.notify()


def reported(folder: Path) -> list[int]:
    return [int(event["version"]) for event in logged(folder, "validation")]


def skipped(folder: Path) -> list[Any]:
    events = read_events(folder / "events" / "validator-0.jsonl")
    return [event["version"] for event in events if event["event"] == "validation_skipped"]


async def next_reading(server: Running, version: int) -> None:
    seen, readings = -1, server.federation.validations
    while 0 not in readings or readings[0].version < version:
        seen = await server.federation.changed.changed_since(seen)


def test_every_version_is_reported_in_order_from_the_first_to_the_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            validating = asyncio.create_task(validate(tmp_path))
            await next_reading(server, 0)
            publish(server, 3)
            await next_reading(server, 1)
            publish(server, 2)
            server.federation.stop("over")
            await validating
        readings = logged(tmp_path, "validation")
        assert [reading["version"] for reading in readings] == [0, 1, 2, 3, 4, 5]
        assert readings[0]["loss"] == pytest.approx(float(np.mean(initial_vector())))
        assert [reading["loss"] for reading in readings[1:]] == [1, 2, 3, 4, 5]
        assert {reading["metric"] for reading in readings} == {0.25}
        assert skipped(tmp_path) == []

    go(scenario)


def test_a_validator_may_come_after_the_server_has_published(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            publish(server, 2)
            server.federation.stop("over")
            await validate(tmp_path)
        assert reported(tmp_path) == [0, 1, 2]

    go(scenario)


def test_a_version_that_went_before_its_turn_is_skipped_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = ModelStore.get

    def all_but_two(self: ModelStore, number: int) -> Version | None:
        return None if number == 2 else get(self, number)

    monkeypatch.setattr(ModelStore, "get", all_but_two)

    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            publish(server, 4)
            server.federation.stop("over")
            await validate(tmp_path)
        assert reported(tmp_path) == [0, 1, 3, 4]
        assert skipped(tmp_path) == [2]

    go(scenario)


def test_a_backlog_is_thinned_out_but_the_last_version_is_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            publish(server, 80)
            server.federation.stop("over")
            await validate(tmp_path)
        assert sorted(reported(tmp_path) + skipped(tmp_path)) == list(range(81))
        assert reported(tmp_path) == sorted(reported(tmp_path))
        assert reported(tmp_path)[-1] == 80

    go(scenario)


def test_a_task_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)):
            with pytest.raises(grpc.aio.AioRpcError, match="there is no task 3"):
                await validate(tmp_path, task_index=3)

    go(scenario)


def test_a_report_that_the_server_does_not_take_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: OperatorService, request: object, context: Any) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")

    monkeypatch.setattr(OperatorService, "ReportValidation", refuse)

    async def scenario() -> None:
        async with running(make_config(tmp_path)):
            with pytest.raises(grpc.aio.AioRpcError, match="not now"):
                await validate(tmp_path)

    go(scenario)


def test_a_server_that_dies_is_an_error_and_no_end_of_the_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            validating = asyncio.create_task(validate(tmp_path))
            await next_reading(server, 0)
        with pytest.raises(grpc.aio.AioRpcError):
            await validating

    go(scenario)


def test_an_evaluation_that_fails_is_an_error(tmp_path: Path) -> None:
    class Broken(FakeWork):
        def evaluate(self, vector: Any) -> tuple[float, float]:
            raise ValueError("no test set")

        def train(self, base: Any, update_number: int) -> Trained:
            raise AssertionError("a validator never trains")

    async def scenario() -> None:
        async with running(make_config(tmp_path)):
            with pytest.raises(ValueError, match="no test set"):
                await validate(tmp_path, work=Broken())

    go(scenario)
