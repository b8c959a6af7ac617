"""The server process: listen, serve until the run is over or a signal arrives, drain, exit."""

import asyncio
import signal
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import Clock, SystemClock
from fadelab_proto.events import EventLog
from fadelab_proto.wire import server_options
from fadelab_server.config import ServerConfig
from fadelab_server.federation import Federation
from fadelab_server.services import FederationService, OperatorService
from fadelab_server.transfer import TransferService

# After the end of the run: how long devices get to hear of it, and the validator to finish.
_FAREWELL_S = 20.0
# After that or a signal: how long calls that are under way may take.
_DRAIN_S = 2.0


class ListenError(RuntimeError):
    """The server cannot listen where it was told to."""


class Server:
    """One server process's gRPC servers around a :class:`Federation`."""

    def __init__(self, config: ServerConfig, clock: Clock, log: EventLog) -> None:
        self.federation = Federation(config, clock, log)
        self._config = config
        self._health = health.aio.HealthServicer()
        self._operator = OperatorService(self.federation)
        self._data = grpc.aio.server(options=server_options())
        self._local = grpc.aio.server(options=server_options())

    async def start(self) -> int:
        """Listen on the data plane and on the operator's socket; return the data plane's port.

        Raises:
            ListenError: if an address is in use or cannot be had.

        """
        for server, trusted in ((self._data, False), (self._local, True)):
            transfer = TransferService(self.federation, trusted=trusted)
            server.add_generic_rpc_handlers((transfer.handler(),))
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        pb_grpc.add_FederationServicer_to_server(FederationService(self.federation), self._data)
        pb_grpc.add_OperatorServicer_to_server(self._operator, self._local)
        try:
            port = self._data.add_insecure_port(self._config.listen)
            self._local.add_insecure_port(f"unix:{self._config.operator_socket}")
        except RuntimeError as error:
            raise ListenError(
                f"cannot listen on {self._config.listen}: the port is in use or the address "
                "does not belong to this machine"
            ) from error
        await self._data.start()
        await self._local.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        self.federation.log.write("server_started", listen=self._config.listen, port=port)
        return port

    async def run_until_over(self) -> None:
        """Wait for the end of the run, then until everybody has heard of it."""
        await self.federation.stopped.wait()
        try:
            await asyncio.wait_for(self._operator.settled(), _FAREWELL_S)
        except TimeoutError:
            self.federation.log.write("farewell_timeout", after_s=_FAREWELL_S)

    async def drain(self) -> None:
        """Take nothing new in, let calls under way finish, make everything durable, close."""
        self.federation.draining = True
        await self._health.enter_graceful_shutdown()
        await self._data.stop(_DRAIN_S)
        await self._local.stop(_DRAIN_S)
        await self.federation.make_durable()
        self.federation.log.write("server_drained")


async def serve(config: ServerConfig, *, resume: Path | None = None) -> None:
    """Run a server until its run is over or SIGTERM or SIGINT arrives.

    Raises:
        ListenError: if an address cannot be had.
        CheckpointError: if ``resume`` names no usable checkpoint, or the last one fails.

    """
    clock = SystemClock()
    with EventLog(config.events_dir, "server", "0", clock) as log:
        server = Server(config, clock, log)
        if resume is not None:
            server.federation.resume(resume)
        await server.start()
        loop = asyncio.get_running_loop()
        over = asyncio.create_task(server.run_until_over())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.cancel)
        try:
            await over
        except asyncio.CancelledError:
            server.federation.stop("the server was told to stop")
        await server.drain()
