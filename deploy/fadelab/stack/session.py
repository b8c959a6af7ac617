"""What goes on at a node while its links are there: agents come, the run begins, the run ends."""

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.stack.clock_offset import ClockOffset, measure
from fadelab.stack.links import NETWORK, NodeLinks
from fadelab.stack.node_file import NodeFile
from fadelab.stack.registrar import Registrar
from fadelab_agent.trust import HandshakeError, ServerDoor
from fadelab_emulation.backends.choice import SKILLS
from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.byte_watch import ByteWatch
from fadelab_emulation.delay_watch import DelayWatch
from fadelab_emulation.emulator import Emulator, EmulatorConfig, calibrate
from fadelab_emulation.netlink.translation import translate
from fadelab_proto import cluster_pb2 as cluster
from fadelab_proto import cluster_pb2_grpc as cluster_grpc
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog
from fadelab_proto.tls import TrustError

_Found = TypeVar("_Found")
_PATIENCE_S = 600.0
"""For conductor and server to start, perhaps on nodes that still fetch their images."""


@dataclass(frozen=True, slots=True)
class _AtWork:
    """What has to hear of a link that moves."""

    emulator: Emulator
    carried: ByteWatch
    delays: DelayWatch | None
    log: EventLog


class NodeSession:
    """One node's part of a run.

    Args:
        file: what to do.
        config: the same for the emulator.
        backend: the links, all waiting; they remain the caller's.
        links: where they are.
        node: what this node is called.
        tell: hears sentences for the user.

    """

    def __init__(
        self,
        *,
        file: NodeFile,
        config: EmulatorConfig,
        backend: KernelBackend,
        links: NodeLinks,
        node: str,
        tell: Callable[[str], None],
    ) -> None:
        self._file = file
        self._config = config
        self._backend = backend
        self._links = links
        self._node = node
        self._tell = tell
        self._clock = SystemClock()
        self._begin_mono_s: float | None = None
        self._serving = False

    async def drive(self, scheduling: str) -> None:
        """See this node's part through.

        Args:
            scheduling: how the kernel treats this process, for the record.

        Raises:
            FadelabError: conductor or server do not answer, or the run broke off.
            NetlinkError: the kernel refuses something.

        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        emulated = SystemClock(self._file.radio.time_scale)
        with EventLog(self._config.events_dir, "emulator", "0", emulated) as log:
            self._note_ready(log, scheduling)
            calibrate(self._config, self._backend, self._clock, log)
            work = asyncio.create_task(self._work(log, stop))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not self._serving:
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _work(self, log: EventLog, stop: asyncio.Event) -> None:
        file = self._file
        async with contextlib.AsyncExitStack() as opened:
            door = _door(file.conductor, file)
            channel = await opened.enter_async_context(door.channel())
            stub = cluster_grpc.ConductorStub(channel)
            offset = await _meet(measure(stub), door, channel)
            log.write(
                "clock_offset",
                node=self._node,
                offset_s=round(offset.offset_s, 6),
                error_s=round(offset.error_s, 6),
            )
            address = await _server_address(file)
            translate(NETWORK, _port(file.server), address)
            log.write("gateway_ready", server=address)
            await self._serve(stub, offset, log, stop)

    async def _serve(
        self,
        stub: "cluster_grpc.ConductorAsyncStub",
        offset: ClockOffset,
        log: EventLog,
        stop: asyncio.Event,
    ) -> None:
        self._serving = True
        with contextlib.ExitStack() as closing:
            delays = None
            if self._config.times_delays:
                delays = DelayWatch(self._backend)
                closing.callback(delays.close)
            carried = ByteWatch(self._backend, log, delays, self._links.ends)
            closing.callback(carried.close)
            emulator = Emulator(
                self._config,
                self._backend,
                self._clock,
                log,
                delay_watch=delays,
                byte_watch=carried,
            )

            at_work = _AtWork(emulator, carried, delays, log)
            registrar = Registrar(
                self._file.attendance,
                run_id=self._file.run_id,
                devices=self._file.devices,
                clock_offset_s=offset.offset_s,
                give=functools.partial(self._give, at_work),
            )
            serving = asyncio.create_task(emulator.serve(stop))
            others = (
                asyncio.create_task(registrar.serve()),
                asyncio.create_task(self._follow(stub, emulator, offset, log)),
            )
            # In the tick's thread, where the links are there by then.
            emulator.call(lambda: self._tell(f"{self._node}: ready for agents"))
            try:
                await asyncio.wait((*others, serving), return_when=asyncio.FIRST_COMPLETED)
                stop.set()
                await serving
            finally:
                for other in others:
                    other.cancel()
                results = await asyncio.gather(*others, return_exceptions=True)
            for ended in results:
                if isinstance(ended, Exception):
                    raise ended

    async def _follow(
        self,
        stub: "cluster_grpc.ConductorAsyncStub",
        emulator: Emulator,
        offset: ClockOffset,
        log: EventLog,
    ) -> None:
        """Begin when the conductor says so; return when it says that the run is over."""
        request = cluster.AttendRequest(
            node=self._node,
            run_id=self._file.run_id,
            clock_offset_s=offset.offset_s,
            clock_error_s=offset.error_s,
        )
        try:
            async for said in stub.Attend(request):
                if said.over:
                    return
                if said.begin_mono_s > 0 and self._begin_mono_s is None:
                    self._begin(said.begin_mono_s - offset.offset_s, emulator, log)
        except grpc.aio.AioRpcError as error:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"the conductor stopped answering: {error.details()}"
            ) from None

    def _begin(self, begin_mono_s: float, emulator: Emulator, log: EventLog) -> None:
        lead_s = begin_mono_s - self._clock.now_s()
        log.write("begin_heard", lead_s=round(lead_s, 6))
        if lead_s <= 0:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED,
                f"{self._node} heard {-lead_s:.3f} s too late when the run begins: its links would "
                "not be where those of the other nodes are",
            )
        self._begin_mono_s = begin_mono_s
        emulator.begin(begin_mono_s)

    async def _give(self, at_work: "_AtWork", device: int, descriptor: int) -> None:
        """Make a device's link in its agent's network, and wait until it is there."""
        residence = self._links.look(device, descriptor)
        opened = residence.opened
        if opened is None:
            return
        sealed = residence.sealed
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish(error: OSError | None) -> None:
            loop.call_soon_threadsafe(_settle, done, error)

        def move() -> None:
            try:
                at_work.carried.leave(device)
                self._links.move(device, opened, self._backend)
                at_work.carried.arrive(device)
                if at_work.delays is not None:
                    at_work.delays.arrive(device)
                at_work.log.write(
                    "link_given",
                    device=device,
                    node=self._node,
                    sealed=[one.name for one in sealed],
                    sealed_sent_packets=[one.sent_packets for one in sealed],
                )
            except OSError as error:
                finish(error)
            else:
                finish(None)

        at_work.emulator.call(move)
        await done

    def _note_ready(self, log: EventLog, scheduling: str) -> None:
        facts = self._config.backend
        log.write(
            "links_ready",
            backend=self._backend.name,
            variant=facts.variant.value,
            why=facts.why,
            passed_over=[f"{variant}: {why}" for variant, why in facts.passed_over.items()],
            loss_is_seeded=SKILLS[facts.variant].loss_is_seeded,
            window=self._file.radio.window.value,
            devices=self._config.devices,
            scheduling=scheduling,
            node=self._node,
            hub_settings=[f"{s.name}={s.value}" for s in self._backend.settings],
            device_settings=[f"{s.name}={s.value}" for s in self._backend.namespaces[0].settings],
        )


def _settle(done: "asyncio.Future[None]", error: OSError | None) -> None:
    if done.cancelled():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _door(address: str, file: NodeFile) -> ServerDoor:
    try:
        return ServerDoor(address, file.trust)
    except TrustError as error:
        raise FadelabError(ExitCode.UNTRUSTED, str(error)) from None


async def _server_address(file: NodeFile) -> str:
    """Return the server's IPv4 address, once it answers over the data network."""
    door = _door(file.server, file)
    async with door.channel() as channel:
        await _meet(channel.channel_ready(), door, channel)
    host = file.server.rpartition(":")[0]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


async def _meet(
    waiting: Coroutine[Any, Any, _Found], door: ServerDoor, channel: grpc.aio.Channel
) -> _Found:
    """Return what a first call over a channel does; end at once where waiting mends nothing."""
    call = asyncio.create_task(waiting)
    doubt = asyncio.create_task(door.hopeless(channel))
    try:
        await asyncio.wait((call, doubt), timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if call.done():
            return call.result()
        if doubt.done():
            doubt.result()
        raise FadelabError(
            ExitCode.COMPONENT_FAILED, f"nobody answered at {door.address} for {_PATIENCE_S:.0f} s"
        )
    except HandshakeError as error:
        raise FadelabError(ExitCode.UNTRUSTED, str(error)) from None
    except grpc.aio.AioRpcError as error:
        raise FadelabError(ExitCode.REFUSED, f"{door.address}: {error.details()}") from None
    finally:
        call.cancel()
        doubt.cancel()
        await asyncio.gather(call, doubt, return_exceptions=True)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
