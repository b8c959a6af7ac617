"""The server process: listen, serve until the run is over or a signal arrives, drain, exit."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import cast

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto import rounds_pb2_grpc as rounds_grpc
from fadelab_proto import schedule_pb2_grpc as schedule_grpc
from fadelab_proto.allocator import keep_freed_memory
from fadelab_proto.clock import Clock, SystemClock
from fadelab_proto.codecs import accelerate
from fadelab_proto.ending import asked_to_end
from fadelab_proto.events import EventLog
from fadelab_proto.tcp_info import TcpLedger, hang_up
from fadelab_proto.wire import server_options
from fadelab_server.cell import Cell
from fadelab_server.config import ServerConfig
from fadelab_server.datagram_intake import DatagramIntake
from fadelab_server.federation import Federation
from fadelab_server.gatekeeper import Gatekeeper, server_credentials
from fadelab_server.handshakes import watching_handshakes
from fadelab_server.message_guard import MessageGuard
from fadelab_server.periods.desk import PeriodDesk
from fadelab_server.periods.service import ScheduleService
from fadelab_server.round_desk import RoundDesk
from fadelab_server.round_service import RoundService
from fadelab_server.scheduling import prefer_throughput
from fadelab_server.services import FederationService, OperatorService
from fadelab_server.sp_fl_config import SpFlConfig
from fadelab_server.transfer import TransferService

# How long devices get to hear that the run is over: those out of contact cannot hear it at all.
_FAREWELL_S = 1.0
# How long the validator gets for the last versions.
_VALIDATION_S = 30.0
# After that or a signal: how long calls that are under way may take.
_DRAIN_S = 0.5


class ListenError(RuntimeError):
    """The server cannot listen where it was told to."""


class Server:
    """One server process's gRPC servers around a :class:`Federation`."""

    def __init__(self, config: ServerConfig, clock: Clock, log: EventLog) -> None:
        self.federation = Federation(config, clock, log)
        self._config = config
        self._health = health.aio.HealthServicer()
        self._operator = OperatorService(self.federation)
        self._ledger = TcpLedger()
        self._clock = clock
        self._gatekeeper = Gatekeeper(config)
        self._data = grpc.aio.server(options=server_options())
        self._local = grpc.aio.server(options=server_options())
        self._datagrams: DatagramIntake | None = None
        self._cell: Cell | None = None

    async def start(self) -> int:
        """Listen on the data plane and on the operator's socket; return the data plane's port.

        Raises:
            ListenError: if an address is in use or cannot be had.
            TrustError: if a certificate or a key cannot be used.

        """
        trust = self._config.trust
        credentials = None if trust is None else server_credentials(trust)
        await self.federation.begin()
        # The generated functions call what it has of a server.
        guarded = cast("grpc.aio.Server", MessageGuard(self._data, self.federation.log))
        for server, trusted in ((guarded, False), (self._local, True)):
            transfer = TransferService(self.federation, trusted=trusted)
            server.add_generic_rpc_handlers((transfer.handler(),))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        service = FederationService(self.federation, self._gatekeeper)
        pb_grpc.add_FederationServicer_to_server(service, guarded)
        self._add_rounds(guarded)
        pb_grpc.add_OperatorServicer_to_server(self._operator, self._local)
        port = _listen(
            self._data,
            self._config.listen,
            "the port is in use or the address does not belong to this machine",
            credentials,
        )
        _listen(
            self._local,
            f"unix:{self._config.operator_socket}",
            "the folder is missing or the path is too long for a socket",
        )
        if self._config.datagram_listen is not None:
            self._datagrams = _take_datagrams(self.federation, self._config.datagram_listen)
        await self._data.start()
        await self._local.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        self.federation.log.write("server_started", listen=self._config.listen, port=port)
        return port

    def _add_rounds(self, server: grpc.aio.Server) -> None:
        """Let devices report before their uploads, and ask what to do, where there is reason to."""
        federation, rule = self.federation, self._config.aggregation
        if isinstance(federation.periods, PeriodDesk):
            schedule = ScheduleService(federation, federation.periods)
            schedule_grpc.add_ScheduleServicer_to_server(schedule, server)
        if not isinstance(rule, SpFlConfig):
            return
        if rule.needs_channels and self._config.radio_socket is not None:
            self._cell = Cell(self._config.radio_socket)
        tasks = range(len(federation.tasks))
        desks = {index: RoundDesk(federation, index, self._cell) for index in tasks}
        rounds_grpc.add_RoundsServicer_to_server(RoundService(federation, desks), server)

    async def run_until_over(self) -> None:
        """Wait for the end of the run, then until everybody has heard of it."""
        ledger = asyncio.create_task(self._keep_ledger())
        try:
            await self.federation.stopped.wait()
            await self._give_time("devices", self._operator.devices_told(), _FAREWELL_S)
            await self._give_time("validator", self._operator.validated(), _VALIDATION_S)
        finally:
            ledger.cancel()
            self._ledger.update()

    async def _give_time(
        self, whom: str, work: Coroutine[None, None, None], seconds: float
    ) -> None:
        try:
            await asyncio.wait_for(work, seconds)
        except TimeoutError:
            self.federation.log.write("not_waited_for", whom=whom, after_s=seconds)

    async def _keep_ledger(self) -> None:
        """Look at the connections' counters now and then: a closed one takes them along."""
        while True:
            await self._clock.sleep_until(self._clock.now_s() + 5.0)
            self._ledger.update()

    async def _close_data_plane(self) -> None:
        stopping = asyncio.create_task(self._data.stop(_DRAIN_S))
        await asyncio.wait((stopping,), timeout=2 * _DRAIN_S)
        # Devices out of contact cannot say good-bye; their streams would wait for them.
        hang_up()
        await stopping

    async def drain(self) -> None:
        """Take nothing new in, let calls under way finish, make everything durable, close."""
        self.federation.draining = True
        self.federation.changed.notify()
        await self._health.enter_graceful_shutdown()
        await self._close_data_plane()
        await self._local.stop(_DRAIN_S)
        if self._datagrams is not None:
            self._datagrams.stop()
        if self._cell is not None:
            await self._cell.close()
        await self.federation.close()
        for remote, counters in sorted(self._ledger.by_remote().items()):
            self.federation.log.write(
                "tcp_sent",
                remote=remote,
                bytes_sent=counters.bytes_sent,
                bytes_retransmitted=counters.bytes_retransmitted,
            )
        self.federation.log.write("server_drained")


def _take_datagrams(federation: Federation, listen: str) -> DatagramIntake:
    host, _, port = listen.rpartition(":")
    try:
        intake = DatagramIntake(federation, (host, int(port)))
    except (OSError, OverflowError) as error:
        raise ListenError(f"cannot listen for datagrams on {listen}: {error}") from error
    intake.start()
    return intake


def _listen(
    server: grpc.aio.Server,
    address: str,
    likely_cause: str,
    credentials: grpc.ServerCredentials | None = None,
) -> int:
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {address}: {likely_cause}") from error


def serve(
    config: ServerConfig,
    *,
    resume: Path | None = None,
    listening: Callable[[int], None] | None = None,
    watch_handshakes: bool = False,
) -> None:
    """Run a server in an event loop of its own until its run is over or SIGTERM or SIGINT arrives.

    The loop is libuv's: gRPC hands it some twenty callbacks for each call.

    Args:
        config: what to serve.
        resume: continue from the checkpoint in this folder.
        listening: called with the data plane's port once the server takes calls.
        watch_handshakes: log refused TLS handshakes; takes over the process's standard error.

    Raises:
        ListenError: if an address cannot be had.
        CheckpointError: if ``resume`` names no usable checkpoint, or the last one fails.
        AccelerationError: if accelerated codecs are asked for and cannot be had.
        TrustError: if a certificate, a key or the file of tokens cannot be used.

    """
    keep_freed_memory()
    prefer_throughput()
    if config.accelerate:
        accelerate()
    uvloop.run(_serve(config, resume, listening, watch_handshakes=watch_handshakes))


async def _serve(
    config: ServerConfig,
    resume: Path | None,
    listening: Callable[[int], None] | None,
    *,
    watch_handshakes: bool,
) -> None:
    clock = SystemClock(config.time_scale)
    with (
        EventLog(config.events_dir, "server", "0", clock) as log,
        watching_handshakes(log) if watch_handshakes else contextlib.nullcontext(),
    ):
        server = Server(config, clock, log)
        if resume is not None:
            server.federation.resume(resume)
        port = await server.start()
        if listening is not None:
            listening(port)
        over = asyncio.create_task(server.run_until_over())
        with asked_to_end(over.cancel):
            try:
                await over
            except asyncio.CancelledError:
                server.federation.stop("the server was told to stop")
            await server.drain()
