"""Waiting for something while something else may end first."""

import asyncio
from collections.abc import Coroutine, Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fadelab.boards.processes import BoardProcess
from fadelab.boards.ssh import BoardError
from fadelab.exit_codes import ExitCode, FadelabError

_READY_S = 60.0


async def serving(channel: grpc.aio.Channel, what: str) -> None:
    """Wait until somebody serves at a channel. Raises FadelabError."""
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        await stub.Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=_READY_S
        )
    except grpc.aio.AioRpcError as error:
        raise FadelabError(
            ExitCode.COMPONENT_FAILED, f"{what} does not answer: {error.code().name}"
        ) from None


async def unless_over(process: BoardProcess, work: Coroutine[None, None, None]) -> None:
    """Wait for ``work``; BoardError if the process ends before."""
    task = asyncio.create_task(work)
    ended = asyncio.create_task(process.ended())
    try:
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise BoardError(ended.result() or f"{process.what} ended before it was of use")
        task.result()
    finally:
        for one in (task, ended):
            one.cancel()
        await asyncio.gather(task, ended, return_exceptions=True)


async def unless_ended(
    watching: "Sequence[asyncio.Task[None]]", work: Coroutine[None, None, None]
) -> None:
    """Wait for ``work``; what one of the watched raises is raised at once."""
    task = asyncio.create_task(work)
    waiting = set(watching)
    try:
        while not task.done():
            done, _ = await asyncio.wait({task, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            for one in done & waiting:
                one.result()
            waiting -= done
        task.result()
    finally:
        task.cancel()
