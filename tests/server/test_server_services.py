"""Joining, directives, the operator's view, listening and the end of a run, over real connections."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.server.harness import (
    DIMENSION,
    FEDAVG,
    LAYOUT,
    FakeClock,
    Running,
    make_config,
    offer,
    running,
)

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.events import read_events
from fadelab_server.app import ListenError

Scenario = Callable[[Running], Awaitable[None]]
Serve = Callable[..., None]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    def run(scenario: Scenario, clock: Clock | None = None, **changes: Any) -> None:
        async def body() -> None:
            async with running(make_config(tmp_path, **changes), clock) as server:
                await scenario(server)

        asyncio.run(body())

    return run


async def read_directive(call: Any) -> pb.Directive:
    directive = await call.read()
    assert isinstance(directive, pb.Directive)
    return directive


async def status_where(
    operator: Any, condition: Callable[[pb.ServerStatus], bool]
) -> pb.ServerStatus:
    """Watch the status until it fulfils the condition."""
    async for status in operator.WatchStatus(pb.WatchStatusRequest()):
        if condition(status):
            assert isinstance(status, pb.ServerStatus)
            return status
    raise AssertionError("the status stream ended")


# -- joining and directives ------------------------------------------------------------------------


def test_joining_tells_the_task_indices_in_the_order_of_the_offer(
    serve: Serve, tmp_path: Path
) -> None:
    initial = tmp_path / "initial.npy"
    tasks = [
        {"name": name, "dimension": DIMENSION, "layout_hash": LAYOUT, "initial": initial}
        for name in ("digits", "other")
    ]

    async def scenario(server: Running) -> None:
        device = server.device()
        reply = await device.join(tasks=[offer(name="other"), offer()])
        assert reply.status == pb.JOIN_STATUS_ACCEPTED
        assert list(reply.task_indices) == [1, 0]
        assert list(reply.last_updates) == [0, 0]
        await device.send(device.update(update_id=4))
        assert list((await device.join()).last_updates) == [4]

    serve(scenario, tasks=tasks)


def test_a_refused_join_says_why_and_gives_no_session(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        reply = await server.device().join(run_id=1)
        assert (reply.status, reply.session) == (pb.JOIN_STATUS_WRONG_RUN, 0)
        assert "belongs to run 00000001" in reply.reason
        await server.device(1).join()
        duplicate = await server.device(1).join(incarnation=5)
        assert duplicate.status == pb.JOIN_STATUS_DUPLICATE_DEVICE
        server.federation.stop("enough")
        late = await server.device().join()
        assert (late.status, late.reason) == (pb.JOIN_STATUS_DRAINING, "the run is over")

    serve(scenario)


def test_a_device_whose_connection_is_lost_can_be_replaced(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        device = server.device(1)
        await device.join()
        call = device.directives()
        await read_directive(call)
        assert (await server.device(1).join(incarnation=5)).status != pb.JOIN_STATUS_ACCEPTED
        seen = server.federation.changed.count
        call.cancel()
        await server.federation.changed.changed_since(seen)
        reply = await server.device(1).join(incarnation=5)
        assert reply.status == pb.JOIN_STATUS_ACCEPTED

    serve(scenario)


def test_directives_lead_through_a_run_of_rounds(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        device = server.device()
        await device.join()
        call = device.directives()
        assert (await read_directive(call)).kind == pb.DIRECTIVE_KIND_WAIT
        await server.operator().Start(pb.StartRequest(start_mono_s=50.0))
        first = await read_directive(call)
        assert (first.kind, first.version) == (pb.DIRECTIVE_KIND_TRAIN_ROUND, 0)
        assert (first.task_index, first.start_mono_s) == (0, 50.0)
        await device.send(device.update())
        second = await read_directive(call)
        assert (second.kind, second.version) == (pb.DIRECTIVE_KIND_TRAIN_ROUND, 1)
        server.federation.stop("enough")
        last = await read_directive(call)
        assert (last.kind, last.reason) == (pb.DIRECTIVE_KIND_STOP, "enough")
        assert await call.read() is grpc.aio.EOF

    serve(scenario, FakeClock(), aggregation=FEDAVG)


def test_free_training_is_announced_once_not_for_every_version(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        server.federation.start(100.0)
        device = server.device()
        await device.join()
        call = device.directives()
        directive = await read_directive(call)
        assert (directive.kind, directive.version) == (pb.DIRECTIVE_KIND_TRAIN_FREELY, 0)
        await device.send(device.update())
        server.federation.stop("enough")
        assert (await read_directive(call)).kind == pb.DIRECTIVE_KIND_STOP

    serve(scenario, FakeClock())


def test_directives_need_a_session(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="unknown session"):
            await server.device().directives().read()

    serve(scenario)


# -- the operator's socket -------------------------------------------------------------------------


def test_the_status_shows_uploads_and_validations(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        operator, device = server.operator(), server.device(1)
        await device.join()
        await device.send(device.update(), [0, 2])
        status = await status_where(operator, lambda s: s.devices[0].packets_received == 2)
        assert (status.started, status.stopped, status.joined) == (False, False, 1)
        (shown,) = status.devices
        assert (shown.device, shown.update_id, shown.packets, shown.joined) == (1, 1, 3, False)
        await device.send(device.update(), [1])
        await operator.ReportValidation(
            pb.ValidationReport(task_index=0, version=1, loss=0.25, metric=0.75)
        )
        status = await status_where(operator, lambda s: s.tasks[0].validated)
        (task,) = status.tasks
        assert (task.name, task.version, task.updates) == ("digits", 1, 1)
        assert (task.validated_version, task.loss, task.metric) == (1, 0.25, 0.75)
        assert (status.devices[0].updates, status.devices[0].update_id) == (1, 0)
        server.federation.stop("enough")
        status = await status_where(operator, lambda s: s.stopped)
        assert status.stop_reason == "enough"

    serve(scenario)


def test_the_status_of_a_device_with_several_tasks_is_of_all_of_them(
    serve: Serve, tmp_path: Path
) -> None:
    initial = tmp_path / "initial.npy"
    tasks = [
        {"name": name, "dimension": DIMENSION, "layout_hash": LAYOUT, "initial": initial}
        for name in ("digits", "other")
    ]

    async def scenario(server: Running) -> None:
        device, operator = server.device(), server.operator()
        await device.join(tasks=[offer(), offer(name="other")])
        for update_id in (1, 2):
            await device.send(device.update(update_id=update_id, task_index=0))
        await device.send(device.update(update_id=1, task_index=1))
        await device.send(device.update(update_id=2, task_index=1), [0])
        status = await status_where(operator, lambda s: s.tasks[1].updates == 1)
        (shown,) = status.devices
        assert (shown.updates, shown.update_id, shown.packets_received) == (3, 2, 1)
        # Both updates of task digits started from version 0; the first one made version 1.
        assert shown.staleness == 1
        assert [task.largest_staleness for task in status.tasks] == [1, 0]
        assert not any(task.HasField("bound") for task in status.tasks)

    serve(scenario, tasks=tasks)


def test_a_diverged_models_loss_is_recorded_as_null(serve: Serve, tmp_path: Path) -> None:
    async def scenario(server: Running) -> None:
        operator = server.operator()
        report = pb.ValidationReport(task_index=0, version=0, loss=math.inf, metric=math.nan)
        await operator.ReportValidation(report)
        status = await status_where(operator, lambda s: s.tasks[0].validated)
        assert status.tasks[0].loss == math.inf

    serve(scenario)
    (event,) = [
        event
        for event in read_events(tmp_path / "events" / "server-0.jsonl")
        if event["event"] == "validation"
    ]
    assert (event["loss"], event["metric"]) == (None, None)


def test_every_version_is_announced_and_the_stream_ends_with_the_run(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        device = server.device()
        await device.join()
        call = server.operator().WatchVersions(pb.WatchVersionsRequest(task_index=0))
        assert (await call.read()).version == 0
        clock.advance(5.0)
        await device.send(device.update())
        notice = await call.read()
        assert (notice.version, notice.published_mono_s) == (1, 105.0)
        await device.send(device.update(update_id=2, base_version=1))
        server.federation.stop("enough")
        assert (await call.read()).version == 2
        assert await call.read() is grpc.aio.EOF

    clock = FakeClock()
    serve(scenario, clock)


@pytest.mark.parametrize("start_mono_s", [0.0, -1.0, math.nan, math.inf])
def test_a_start_at_no_time_is_refused(serve: Serve, start_mono_s: float) -> None:
    async def scenario(server: Running) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await server.operator().Start(pb.StartRequest(start_mono_s=start_mono_s))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert server.federation.start_mono_s is None

    serve(scenario)


def test_unknown_tasks_are_refused(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        operator = server.operator()
        with pytest.raises(grpc.aio.AioRpcError, match="there is no task 1"):
            await operator.ReportValidation(pb.ValidationReport(task_index=1))
        with pytest.raises(grpc.aio.AioRpcError, match="there is no task 1"):
            await operator.WatchVersions(pb.WatchVersionsRequest(task_index=1)).read()

    serve(scenario)


def test_the_operator_cannot_be_reached_from_the_network(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        stub = type(server.operator())(server.connect(f"127.0.0.1:{server.port}"))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Start(pb.StartRequest(start_mono_s=1.0))
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED

    serve(scenario)


def test_the_health_service_answers_on_both_sides(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        for address in (f"127.0.0.1:{server.port}", f"unix:{server.config.operator_socket}"):
            stub: Any = health_pb2_grpc.HealthStub(server.connect(address))
            reply = await stub.Check(health_pb2.HealthCheckRequest())
            assert reply.status == health_pb2.HealthCheckResponse.SERVING

    serve(scenario)


# -- listening and the end -------------------------------------------------------------------------


def test_a_port_in_use_is_reported(serve: Serve, tmp_path: Path) -> None:
    async def scenario(server: Running) -> None:
        (tmp_path / "second").mkdir()
        config = make_config(tmp_path / "second", listen=f"127.0.0.1:{server.port}")
        with pytest.raises(ListenError, match=f"127.0.0.1:{server.port}: the port is in use"):
            async with running(config):
                raise AssertionError("two servers share one port")
        assert (await server.device().join()).status == pb.JOIN_STATUS_ACCEPTED

    serve(scenario)


def test_an_operator_socket_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = make_config(tmp_path, operator_socket=tmp_path / "missing" / "operator")
        with pytest.raises(ListenError, match=r"unix:.*missing/operator"):
            async with running(config):
                raise AssertionError("there is no such folder")

    asyncio.run(scenario())


def test_the_run_ends_with_its_last_version(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        server.federation.start(100.0)
        device = server.device()
        await device.join()
        await device.send(device.update())
        assert server.federation.stop_reason is None
        reply = await device.send(device.update(update_id=2, base_version=1))
        assert reply.status == pb.UPLOAD_STATUS_COMPLETE
        assert server.federation.stop_reason == "2 versions are published"

    serve(scenario, FakeClock(), stop={"duration_s": 60, "max_versions": 2})


def test_the_run_ends_when_its_duration_is_over(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        await server.operator().Start(pb.StartRequest(start_mono_s=120.0))
        clock.advance(79.9)
        await server.device().join()
        assert server.federation.stop_reason is None, "100 + 79.9 s is before 120 + 60 s"
        clock.advance(0.2)
        await server.federation.stopped.wait()
        assert server.federation.stop_reason == "the duration of 60 s is over"

    clock = FakeClock()
    serve(scenario, clock, stop={"duration_s": 60})


def test_a_second_start_changes_nothing(serve: Serve) -> None:
    async def scenario(server: Running) -> None:
        for start_mono_s in (120.0, 500.0):
            await server.operator().Start(pb.StartRequest(start_mono_s=start_mono_s))
        assert server.federation.start_mono_s == 120.0

    serve(scenario, FakeClock())


def test_a_drained_server_has_everything_on_the_disk(serve: Serve, tmp_path: Path) -> None:
    async def scenario(server: Running) -> None:
        device = server.device()
        await device.join()
        await server.server.drain()
        assert (tmp_path / "checkpoint" / "server.state").exists()

    serve(scenario)
    events = [line["event"] for line in read_events(tmp_path / "events" / "server-0.jsonl")]
    assert events[-1] == "server_drained"
