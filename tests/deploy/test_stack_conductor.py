"""The conductor: who may attend, what is announced, and when."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.trusting import agent_trust, deployment, server_trust

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.stack.clock_offset import measure
from fadelab.stack.conductor import ConductorFile, conduct
from fadelab_agent.trust import AgentTrust, ServerDoor
from fadelab_proto import cluster_pb2 as cluster
from fadelab_proto import cluster_pb2_grpc as cluster_grpc
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.events import read_events

RUN = 9


@pytest.fixture
def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Server(pb_grpc.OperatorServicer):
    """An operator's socket as the conductor sees it: two devices join, the run begins and ends."""

    def __init__(self) -> None:
        self.start_mono_s: float | None = None
        self.started, self.stopped = asyncio.Event(), asyncio.Event()
        self.joined = asyncio.Event()

    async def WatchStatus(self, request: Any, context: Any) -> AsyncIterator[pb.ServerStatus]:  # noqa: N802
        yield pb.ServerStatus(joined=1)
        await self.joined.wait()
        yield pb.ServerStatus(joined=2)
        await self.stopped.wait()
        yield pb.ServerStatus(joined=2, started=True, stopped=True)

    async def Start(self, request: pb.StartRequest, context: Any) -> pb.StartReply:  # noqa: N802
        self.start_mono_s = request.start_mono_s
        self.started.set()
        return pb.StartReply()


@contextlib.asynccontextmanager
async def conducting(
    folder: Path, port: int, **changes: Any
) -> AsyncIterator[tuple[Server, "asyncio.Task[None]", Path]]:
    files = deployment(folder / "trust")
    operator = folder / "operator"
    behaviour, server = Server(), grpc.aio.server()
    pb_grpc.add_OperatorServicer_to_server(behaviour, server)
    server.add_insecure_port(f"unix:{operator}")
    await server.start()
    file = ConductorFile.model_validate(
        {
            "run_id": RUN,
            "devices": 2,
            "listen": f"127.0.0.1:{port}",
            "trust": server_trust(files, tokens=False)["trust"],
            "operator_socket": operator,
            "events_dir": folder / "events",
            "time_scale": 2.0,
        }
        | changes
    )
    work = asyncio.create_task(conduct(file, lambda sentence: None))
    try:
        yield behaviour, work, files
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await server.stop(None)


def channel(files: Path, port: int, name: str = "operator") -> grpc.aio.Channel:
    trust = AgentTrust.model_validate(agent_trust(files, name))
    return ServerDoor(f"127.0.0.1:{port}", trust).channel()


def test_all_nodes_hear_of_one_beginning_and_of_the_end(tmp_path: Path, free_port: int) -> None:
    async def attend(files: Path, begins: asyncio.Event) -> list[cluster.Announcement]:
        async with channel(files, free_port) as opened:
            stub = cluster_grpc.ConductorStub(opened)
            offset = await measure(stub)
            assert abs(offset.offset_s) <= offset.error_s + 1e-6  # one machine, one clock
            request = cluster.AttendRequest(node="n", run_id=RUN)
            heard = []
            async for said in stub.Attend(request):
                heard.append(said)
                if said.begin_mono_s:
                    begins.set()
            return heard

    async def body() -> None:
        async with conducting(tmp_path, free_port) as (server, work, files):
            told = [asyncio.Event() for _ in range(3)]
            attending = [asyncio.create_task(attend(files, one)) for one in told[:2]]
            server.joined.set()
            await server.started.wait()
            attending.append(asyncio.create_task(attend(files, told[2])))
            for one in told:
                await one.wait()
            server.stopped.set()
            heard = await asyncio.gather(*attending)
            await work
        begins = {said.begin_mono_s for one in heard for said in one if said.begin_mono_s}
        assert all(one[-1].over for one in heard)
        (begin_mono_s,) = begins
        assert server.start_mono_s == begin_mono_s * 2.0  # by the emulation's clock
        assert begin_mono_s < time.monotonic() + 2.0

    asyncio.run(asyncio.wait_for(body(), 40))
    events = read_events(tmp_path / "events" / "launcher-0.jsonl")
    assert [e["name"] for e in events if e["event"] == "phase"] == ["all_joined", "started", "over"]
    assert sum(e["event"] == "node_attends" for e in events) == 3


def test_devices_and_other_runs_are_refused(tmp_path: Path, free_port: int) -> None:
    async def refused(files: Path, name: str, run_id: int) -> tuple[grpc.StatusCode, str]:
        async with channel(files, free_port, name) as opened:
            stub = cluster_grpc.ConductorStub(opened)
            request = cluster.AttendRequest(node="n", run_id=run_id)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Attend(request, wait_for_ready=True):
                    pass
            return caught.value.code(), caught.value.details() or ""

    async def body() -> None:
        async with conducting(tmp_path, free_port) as (_, _, files):
            code, why = await refused(files, "device-0", RUN)
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "device-0" in why
            code, why = await refused(files, "operator", RUN + 1)
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "another run" in why

    asyncio.run(asyncio.wait_for(body(), 40))


def test_whoever_does_not_come_is_counted(tmp_path: Path, free_port: int) -> None:
    async def body() -> None:
        async with conducting(tmp_path, free_port, patience_s=0.2) as (_, work, _):
            with pytest.raises(FadelabError, match="only 1 of 2 devices joined") as caught:
                await work
            assert caught.value.code is ExitCode.COMPONENT_FAILED

    asyncio.run(asyncio.wait_for(body(), 40))
