"""Beside the server: see that all devices join, tell every node when to begin, and of the end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
from pydantic import Field

from fadelab.conduct import all_joined, local_channel, over
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_proto import cluster_pb2 as cluster
from fadelab_proto import cluster_pb2_grpc as cluster_grpc
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import SystemClock
from fadelab_proto.config import StrictModel
from fadelab_proto.events import EventLog
from fadelab_proto.wire import server_options
from fadelab_server.config import ServerTrust
from fadelab_server.gatekeeper import server_credentials

OPERATOR = "operator"
"""The name in the certificates of those who may attend: emulators, not devices."""
_LEAD_S = 2.0
"""From the announcement to the beginning: enough for it to reach every node."""
_SERVER_GRACE_S = 45.0
_FAREWELL_S = 5.0
_NAME_KEYS = ("x509_common_name", "x509_subject_alternative_name")


class ConductorFile(StrictModel):
    """What ``fadelab node conduct`` reads."""

    run_id: int = Field(ge=0, lt=2**32)
    devices: int = Field(ge=1, le=65535)
    listen: str = Field(description="HOST:PORT on the management network.")
    trust: ServerTrust = Field(description="Mutual TLS: emulators show the operator's certificate.")
    operator_socket: Path = Field(description="The server's local socket.")
    events_dir: Path
    time_scale: float = Field(1.0, gt=0, description="As in the server's configuration.")
    patience_s: float = Field(600.0, gt=0, description="How long to wait for all devices.")


class _Board:
    """What has been announced, and who waits for more."""

    def __init__(self) -> None:
        self.begin_mono_s = 0.0
        self.over = False
        self.attending = 0
        self._changed = asyncio.Condition()

    def announcement(self) -> cluster.Announcement:
        return cluster.Announcement(begin_mono_s=self.begin_mono_s, over=self.over)

    async def announce(self, *, begin_mono_s: float | None = None, over: bool = False) -> None:
        async with self._changed:
            if begin_mono_s is not None:
                self.begin_mono_s = begin_mono_s
            self.over = self.over or over
            self._changed.notify_all()

    async def change(self, known: cluster.Announcement) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.announcement() != known)

    async def left(self) -> None:
        """Wait until nobody attends any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.attending == 0)

    async def count(self, change: int) -> None:
        async with self._changed:
            self.attending += change
            self._changed.notify_all()


class _Service(cluster_grpc.ConductorServicer):
    def __init__(self, run_id: int, board: _Board, log: EventLog) -> None:
        self._run_id = run_id
        self._board = board
        self._log = log

    async def ReadClock(  # noqa: N802
        self,
        request: cluster.ReadClockRequest,  # noqa: ARG002
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> cluster.ReadClockReply:
        """Tell the monotonic clock."""
        now_s = time.monotonic()
        await _check_operator(context)
        return cluster.ReadClockReply(mono_s=now_s)

    async def Attend(  # noqa: N802
        self,
        request: cluster.AttendRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[cluster.Announcement]:
        """Announce what there is to announce, until the run is over."""
        await _check_operator(context)
        if request.run_id != self._run_id:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, "the emulator was written for another run"
            )
        self._log.write(
            "node_attends",
            node=request.node[:256],
            peer=context.peer(),
            clock_offset_s=request.clock_offset_s,
            clock_error_s=request.clock_error_s,
        )
        await self._board.count(1)
        try:
            while True:
                known = self._board.announcement()
                yield known
                if known.over:
                    return
                await self._board.change(known)
        finally:
            await self._board.count(-1)


async def _check_operator(context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    peer = context.auth_context()
    names = {name.decode(errors="replace") for key in _NAME_KEYS for name in peer.get(key, ())}
    if OPERATOR not in names:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"only the certificate of the {OPERATOR} may attend, this is one of "
            f"{', '.join(sorted(names)) or 'nobody'}",
        )


async def conduct(file: ConductorFile, tell: Callable[[str], None]) -> None:
    """Begin the run when all devices have joined, and stay until it is over.

    Args:
        file: what to do.
        tell: hears sentences for the user.

    Raises:
        FadelabError: not all devices joined, or the server ended before the run was over.
        TrustError: a certificate or a key cannot be used.

    """
    board = _Board()
    with EventLog(file.events_dir, "launcher", "0", SystemClock(file.time_scale)) as log:
        log.write("conductor_started", run_id=file.run_id)
        server = grpc.aio.server(options=server_options())
        service = _Service(file.run_id, board, log)
        cluster_grpc.add_ConductorServicer_to_server(service, server)
        server.add_secure_port(file.listen, server_credentials(file.trust))
        await server.start()
        try:
            async with local_channel(file.operator_socket) as operator:
                await _see_through(file, board, pb_grpc.OperatorStub(operator), log, tell)
        except grpc.aio.AioRpcError as error:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"the server stopped answering: {error.details()}"
            ) from None
        finally:
            await board.announce(over=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(board.left(), _FAREWELL_S)
            await server.stop(_FAREWELL_S)


async def _see_through(
    file: ConductorFile,
    board: _Board,
    stub: "pb_grpc.OperatorAsyncStub",
    log: EventLog,
    tell: Callable[[str], None],
) -> None:
    begun_s = time.monotonic()

    def phase(name: str) -> None:
        since_s = time.monotonic() - begun_s
        log.write("phase", name=name, since_command_s=round(since_s, 4))

    await all_joined(stub, file.devices, file.patience_s)
    phase("all_joined")
    begin_mono_s = time.monotonic() + _LEAD_S
    await board.announce(begin_mono_s=begin_mono_s)
    # Emulators live by kernels' clocks, all others by the emulation's.
    await stub.Start(pb.StartRequest(start_mono_s=begin_mono_s * file.time_scale))
    phase("started")
    tell(f"{file.devices} devices have joined on {board.attending} nodes: the run begins")
    if not await over(stub):
        raise FadelabError(ExitCode.COMPONENT_FAILED, "the server ended before the run was over")
    phase("over")
    await _server_leaves(stub)
    tell("the run is over")


async def _server_leaves(stub: "pb_grpc.OperatorAsyncStub") -> None:
    """Wait for the server's end, which comes when the validator has caught up."""

    async def watch() -> None:
        async for _ in stub.WatchStatus(pb.WatchStatusRequest()):
            pass

    with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError):
        await asyncio.wait_for(watch(), _SERVER_GRACE_S)
