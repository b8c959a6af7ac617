"""A real server process: told to stop, killed, resumed."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.server.harness import FEDASYNC, FEDAVG, Device, go_on, make_config, resume

from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.events import read_events
from fadelab_proto.wire import channel_options
from fadelab_server.config import ServerConfig

_PROGRAM = """
import sys
from pathlib import Path
from fadelab_server import app
from fadelab_server.config import ServerConfig

start = app.Server.start

async def start_and_tell(self):
    port = await start(self)
    sys.stdout.write(f"{port}\\n")
    sys.stdout.flush()
    return port

app.Server.start = start_and_tell
resume = Path(sys.argv[2]) if len(sys.argv) > 2 else None
app.serve(ServerConfig.model_validate_json(sys.argv[1]), resume=resume)
"""


@asynccontextmanager
async def process(config: ServerConfig, *resume: Path) -> AsyncIterator[tuple[Process, str]]:
    """Start a server process and give its address once it listens; leave no process behind."""
    arguments = [config.model_dump_json(), *map(str, resume)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, *arguments, stdout=PIPE, stderr=PIPE
    )
    assert child.stdout is not None
    try:
        port = (await child.stdout.readline()).decode().strip()
        if not port and child.stderr is not None:
            raise AssertionError((await child.stderr.read()).decode())
        yield child, f"127.0.0.1:{port}"
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


def connected(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=channel_options())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    async def scenario() -> None:
        async with (
            process(make_config(tmp_path)) as (child, address),
            connected(address) as channel,
        ):
            device = Device(channel)
            await device.join()
            call = device.directives()
            assert (await call.read()).kind == pb.DIRECTIVE_KIND_WAIT
            child.send_signal(number)
            last = await call.read()
            assert last.kind == pb.DIRECTIVE_KIND_STOP
            assert last.reason == "the server was told to stop"
            _, errors = await child.communicate()
            assert (child.returncode, errors) == (0, b"")

    asyncio.run(scenario())
    events = [line["event"] for line in read_events(tmp_path / "events" / "server-0.jsonl")]
    assert events[-1] == "server_drained"
    assert "run_stopped" in events
    assert (tmp_path / "checkpoint" / "server.state").exists()


async def acknowledge(config: ServerConfig) -> None:
    """Have two updates acknowledged by a server process, half send a third, kill the process."""
    async with process(config) as (child, address), connected(address) as channel:
        device = Device(channel)
        await device.join()
        versions = 0
        for number in (1, 2):
            reply = await device.send(device.update(update_id=number, base_version=versions))
            assert reply.status == pb.UPLOAD_STATUS_COMPLETE
            versions = reply.newest_version
        await device.send(device.update(update_id=3, base_version=versions), [0])
        child.kill()
        await child.communicate()
        assert child.returncode == -signal.SIGKILL


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = make_config(tmp_path, aggregation=FEDASYNC)
        await acknowledge(config)
        async with (
            process(config, config.checkpoint_dir) as (_, address),
            connected(address) as channel,
        ):
            device = Device(channel)
            reply = await device.join()
            assert list(reply.last_updates) == [2]
            info, _ = await device.fetch(version=2)
            assert info.version == 2
            duplicate = await device.send(device.update(update_id=2, base_version=1))
            assert duplicate.status == pb.UPLOAD_STATUS_DUPLICATE
            third = device.update(update_id=3, base_version=2)
            call, held = await resume(device, third)
            assert held == [(0, 0)], "what was acknowledged is not sent again"
            reply = await go_on(call, third, [1, 2])
            assert (reply.status, reply.newest_version) == (pb.UPLOAD_STATUS_COMPLETE, 3)

    asyncio.run(scenario())


async def start_round(config: ServerConfig, address: str) -> tuple[Device, Device]:
    async with connected(f"unix:{config.operator_socket}") as local:
        first, second = Device(connected(address), 0), Device(connected(address), 1)
        for device in (first, second):
            await device.join()
        operator: Any = pb_grpc.OperatorStub(local)
        await operator.Start(pb.StartRequest(start_mono_s=1.0))
    return first, second


def test_a_half_finished_round_survives_a_kill(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = make_config(tmp_path, aggregation=FEDAVG, stop={"duration_s": 10_000_000})
        async with process(config) as (child, address):
            first, second = await start_round(config, address)
            await first.send(first.update(2.0))
            reply = await second.send(second.update(4.0))
            assert reply.newest_version == 1
            reply = await first.send(first.update(8.0, update_id=2, base_version=1))
            assert (reply.status, reply.newest_version) == (pb.UPLOAD_STATUS_COMPLETE, 1)
            child.kill()
        async with process(config, config.checkpoint_dir) as (_, address):
            first, second = Device(connected(address), 0), Device(connected(address), 1)
            assert list((await first.join()).last_updates) == [2]
            call = first.directives()
            directive: Any = await call.read()
            assert (directive.kind, directive.version) == (pb.DIRECTIVE_KIND_TRAIN_ROUND, 1)
            await second.join()
            reply = await second.send(second.update(0.0, update_id=2, base_version=1))
            assert (reply.status, reply.newest_version) == (pb.UPLOAD_STATUS_COMPLETE, 2)
            _, packets = await first.fetch(version=2)
            # -1 at first, + (2 + 4) / 2 in round 0, + (8 + 0) / 2 in round 1.
            value = memoryview(packets[0].payload)[:4].cast("B").cast("f")[0]
            assert value == pytest.approx(6.0)
            call.cancel()

    asyncio.run(scenario())


def test_a_resumption_without_a_checkpoint_fails_with_its_path(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with process(make_config(tmp_path), tmp_path / "checkpoint"):
            raise AssertionError("there is nothing to resume")

    with pytest.raises(AssertionError, match=r"CheckpointError: there is no checkpoint at .*state"):
        asyncio.run(scenario())
