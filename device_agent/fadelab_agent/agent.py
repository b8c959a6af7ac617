"""The agent process: join, keep the tasks' loops going, leave in order."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import grpc

from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.contact_loop import ContactLoop
from fadelab_agent.downlink import Downlink
from fadelab_agent.error_memory import ErrorMemory, NoMemory
from fadelab_agent.innovation import InnovationMemory
from fadelab_agent.keepsake import Keepsake
from fadelab_agent.lazy_upload import LazyUpload
from fadelab_agent.membership import Membership
from fadelab_agent.nl80211 import WirelessInterface
from fadelab_agent.period_loop import PeriodLoop
from fadelab_agent.policy import build_policy
from fadelab_agent.power.sampler import power_sampled
from fadelab_agent.radio import EmulatedRadio, WiredRadio
from fadelab_agent.radio_config import KernelRadioConfig
from fadelab_agent.radio_of_kernel import KernelRadio
from fadelab_agent.round_loop import RoundLoop
from fadelab_agent.spool import Owner
from fadelab_agent.state_dir import StateDir
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_agent.trainer_loop import TrainerLoop
from fadelab_agent.trust import ServerDoor, read_token
from fadelab_agent.update_reports import UpdateReports
from fadelab_agent.uplink import Uplink
from fadelab_agent.upload_ways import UploadWays, open_ways
from fadelab_agent.work import TaskWork
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock, SystemClock
from fadelab_proto.codecs import accelerate
from fadelab_proto.ending import asked_to_end
from fadelab_proto.events import EventLog
from fadelab_proto.process_memory import private_memory_mib
from fadelab_proto.tcp_info import NOTHING_SENT, TcpLedger, abort

TaskLoop = TrainerLoop | ContactLoop | PeriodLoop


class Agent:
    """One device."""

    def __init__(self, config: AgentConfig, works: Sequence[TaskWork], clock: Clock) -> None:
        self._config = config
        self._works = works
        self._clock = clock
        self._ledger = TcpLedger()

    async def run(self) -> None:
        """Take part in the run until it is over.

        Raises:
            StateDirError: if ``state_dir`` cannot be used, or another agent uses it.
            TrustError: if a certificate, a key or the token cannot be used.
            WirelessError: if the kernel does not tell of the wireless interface.
            HandshakeError: if server and agent do not trust each other.
            RefusedError: if the server does not take the device in.
            StalledError: if a transfer stopped making progress.

        """
        config, clock = self._config, self._clock
        door = ServerDoor(config.server, config.trust)
        token = None if config.token is None else read_token(config.token)
        with (
            StateDir(config.state_dir, sync=config.state_sync) as state,
            EventLog(config.events_dir, "agent", str(config.device), clock) as log,
        ):
            log.write("agent_started")
            async with (
                power_sampled(clock, log, wanted=config.measure_power),
                self._radio() as radio,
                door.channel() as channel,
                contextlib.AsyncExitStack() as opened,
            ):
                membership = Membership(
                    channel,
                    run_id=config.run_id,
                    device=config.device,
                    offers=[_offer(work) for work in self._works],
                    clock=clock,
                    log=log,
                    key=state.key,
                    door=door,
                    token=token,
                )
                try:
                    # A modem that does not answer yet has no link that could be used.
                    await radio.contact()
                    await membership.join()
                    if not membership.stopped.is_set():
                        ways = await opened.enter_async_context(
                            open_ways(
                                config.classes,
                                config.uplink_shares,
                                channel,
                                door=door,
                                datagram_port=membership.datagram_port,
                                mtu_bytes=config.mtu_bytes,
                                radio=radio,
                                clock=clock,
                                stall_s=config.stall_s,
                            )
                        )
                        loops = self._loops(
                            membership, radio, channel, ways=ways, log=log, state=state
                        )
                        await self._take_part(membership, loops)
                finally:
                    self._ledger.update()
                    self._log_leaving(log, membership)

    async def _take_part(self, membership: Membership, loops: Sequence[TaskLoop]) -> None:
        jobs = [asyncio.create_task(loop.run()) for loop in loops]
        jobs.append(asyncio.create_task(membership.follow()))
        over = asyncio.create_task(membership.stopped.wait())
        ledger = asyncio.create_task(self._keep_ledger())
        try:
            # No job ends by itself before the run is over, unless it fails.
            await asyncio.wait((over, *jobs), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (over, ledger, *jobs):
                task.cancel()
            results = await asyncio.gather(over, ledger, *jobs, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _loops(
        self,
        membership: Membership,
        radio: EmulatedRadio | WiredRadio | KernelRadio,
        channel: grpc.aio.Channel,
        *,
        ways: UploadWays,
        log: EventLog,
        state: StateDir,
    ) -> list[TaskLoop]:
        config, clock = self._config, self._clock
        terms = DeviceTerms(
            run_id=config.run_id,
            seed=config.seed,
            device=config.device,
            max_payload_bytes=config.classes.payload_bytes(
                config.max_payload_bytes, config.mtu_bytes
            ),
            uplink_power_w=config.uplink_power_w,
            downlink_power_w=config.downlink_power_w,
            compute=config.compute,
            gives_up=config.gives_up,
            substitute=config.substitute,
        )
        lock = asyncio.Lock()
        stall_s = config.stall_s
        memory = memory_kind(config)

        def loop(work: TaskWork) -> TaskLoop:
            owner = Owner(
                run_id=config.run_id,
                device=config.device,
                task=work.name,
                dimension=work.dimension,
                layout_hash=work.layout_hash,
                memory=memory.__name__,
            )
            parts = TaskParts(
                work=work,
                policy=build_policy(config.policy),
                memory=memory(work.dimension),
                keepsake=Keepsake(state.spool(owner), task=work.name, clock=clock, log=log),
                membership=membership,
                radio=radio,
                uplink=Uplink(ways, radio=radio, clock=clock, log=log, stall_s=stall_s),
                downlink=Downlink(
                    channel,
                    radio=radio,
                    clock=clock,
                    log=log,
                    stall_s=stall_s,
                    keeps_model=config.keeps_model,
                ),
                clock=clock,
                log=log,
                compute_lock=lock,
            )
            if config.reports:
                return RoundLoop(
                    terms, parts, channel=channel, ways=ways, break_off=self._breaks_off(ways, log)
                )
            if config.periods is not None:
                number = self._works.index(work)
                return PeriodLoop.build(terms, parts, config.periods, channel, number=number)
            if config.contact is not None:
                return ContactLoop(terms, config.contact, parts, state.history(owner))
            reports = (
                UpdateReports(channel, membership, task=work.name, clock=clock, log=log)
                if config.reports_updates
                else None
            )
            return TrainerLoop(terms, parts, lazy=lazy_upload(config, work, log), reports=reports)

        return [loop(work) for work in self._works]

    def _radio(self) -> EmulatedRadio | WiredRadio | KernelRadio:
        config = self._config
        if config.radio_socket is not None:
            return EmulatedRadio(config.radio_socket, config.device, self._clock)
        radio = config.radio
        if isinstance(radio, KernelRadioConfig):
            return KernelRadio(radio, WirelessInterface(radio.interface), self._clock)
        return WiredRadio(
            self._clock, rate_up_bps=radio.rate_up_bps, rate_down_bps=radio.rate_down_bps
        )

    def _breaks_off(self, ways: UploadWays, log: EventLog) -> Callable[[], None]:
        """Return what ends the connections of packet classes, their counters being kept."""

        def break_off() -> None:
            self._ledger.update()
            sent = sum((abort(dscp) for dscp in ways.marks), NOTHING_SENT)
            log.write("connections_aborted", **sent.event_fields())

        return break_off

    async def _keep_ledger(self) -> None:
        """Look at the connections' counters now and then: a closed one takes them along."""
        while True:
            await self._clock.sleep_until(self._clock.now_s() + 5.0)
            self._ledger.update()

    def _log_leaving(self, log: EventLog, membership: Membership) -> None:
        tcp = self._ledger.total()
        log.write(
            "agent_stopped",
            reason=membership.stop_reason,
            tcp_bytes_sent=tcp.bytes_sent,
            tcp_bytes_retransmitted=tcp.bytes_retransmitted,
            private_mib=(round(private_memory_mib(), 2) if self._config.measure_memory else None),
        )


def memory_kind(config: AgentConfig) -> type[InnovationMemory | ErrorMemory | NoMemory]:
    """Return what remembers what a device did not send."""
    if config.innovation is not None:
        return InnovationMemory
    return ErrorMemory if config.error_memory else NoMemory


def lazy_upload(config: AgentConfig, work: TaskWork, log: EventLog) -> LazyUpload | None:
    """Return what decides which updates a device sends; None if it sends all."""
    if config.innovation is None:
        return None
    return LazyUpload(config.innovation.build(), task=work.name, log=log)


def _offer(work: TaskWork) -> pb.TaskOffer:
    return pb.TaskOffer(
        name=work.name,
        dimension=work.dimension,
        layout_hash=work.layout_hash,
        samples=work.samples,
    )


async def run_agent(config: AgentConfig, works: Sequence[TaskWork]) -> None:
    """Run one agent until its run is over or SIGTERM or SIGINT arrives.

    Raises:
        AccelerationError: if accelerated codecs are asked for and cannot be had.

    """
    if config.accelerate:
        accelerate()
    clock = SystemClock(config.time_scale, config.clock_offset_s)
    agent = asyncio.create_task(Agent(config, works, clock).run())
    with asked_to_end(agent.cancel), contextlib.suppress(asyncio.CancelledError):
        await agent
