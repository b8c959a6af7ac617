"""The validator role: report loss and metric of every published version.

The server holds flat vectors and knows no model; a validator does, and talks to the server over
its local socket, so its traffic crosses no shaped link.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import grpc

from fadelab_agent.downlink import Downlink
from fadelab_agent.radio import WiredRadio
from fadelab_agent.work import TaskWork
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_proto.wire import channel_options

# With more versions than this waiting, every second one is left out: the newest must not wait for
# minutes because versions are published faster than they can be evaluated.
_BACKLOG = 32


class Validator:
    """Evaluate one task's versions."""

    def __init__(
        self, work: TaskWork, task_index: int, *, socket: Path, clock: Clock, log: EventLog
    ) -> None:
        self._work = work
        self._task_index = task_index
        self._target = f"unix:{socket}"
        self._clock = clock
        self._log = log
        self._waiting: deque[int] = deque()
        self._news = asyncio.Event()
        self._over = False

    async def run(self) -> None:
        """Follow the versions until the run is over and the last one is reported.

        Raises:
            AioRpcError: if the server refuses or cannot be reached any more.

        """
        if (baseline := self._work.baseline()) is not None:
            self._log.write("baseline", task=self._work.name, **baseline._asdict())
        async with grpc.aio.insecure_channel(self._target, options=channel_options()) as channel:
            stub = pb_grpc.OperatorStub(channel)
            radio = WiredRadio(self._clock, rate_up_bps=1e9, rate_down_bps=1e9)
            downlink = Downlink(
                channel, radio=radio, clock=self._clock, log=self._log, stall_s=30.0
            )
            watcher = asyncio.create_task(self._watch(stub))
            try:
                while (version := await self._next()) is not None:
                    await self._report(stub, downlink, version)
                # Raises what the stream broke with: only its orderly end is the end of the run.
                await watcher
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)

    async def _watch(self, stub: "pb_grpc.OperatorAsyncStub") -> None:
        try:
            request = pb.WatchVersionsRequest(task_index=self._task_index)
            async for notice in stub.WatchVersions(request, wait_for_ready=True):
                self._waiting.append(notice.version)
                self._news.set()
        finally:
            self._over = True
            self._news.set()

    async def _next(self) -> int | None:
        while not self._waiting:
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        if len(self._waiting) > _BACKLOG:
            skipped = self._waiting.popleft()
            self._log.write("validation_skipped", task=self._work.name, version=skipped)
        return self._waiting.popleft()

    async def _report(
        self, stub: "pb_grpc.OperatorAsyncStub", downlink: Downlink, version: int
    ) -> None:
        try:
            model = await downlink.fetch(
                session=0,
                task_index=self._task_index,
                dimension=self._work.dimension,
                version=version,
            )
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            self._log.write("validation_skipped", task=self._work.name, version=version)
            return
        loss, metric = await asyncio.to_thread(self._work.evaluate, model.vector)
        await stub.ReportValidation(
            pb.ValidationReport(
                task_index=self._task_index, version=version, loss=loss, metric=metric
            )
        )


async def validate(works: Sequence[TaskWork], *, socket: Path, clock: Clock, log: EventLog) -> None:
    """Evaluate the versions of several tasks, in the order in which the server counts them.

    Raises:
        AioRpcError: if the server refuses or cannot be reached any more.

    """
    jobs = [
        asyncio.create_task(Validator(work, index, socket=socket, clock=clock, log=log).run())
        for index, work in enumerate(works)
    ]
    try:
        await asyncio.gather(*jobs)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
