"""The emulator process: make the links, serve the radio plane, carry the timeline out, account."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import Field

from fadelab_emulation.achieved import AchievedWriter
from fadelab_emulation.backends.base import DirectionCounters, LinkBackend, LinkCounters
from fadelab_emulation.backends.choice import SKILLS, Choice, Variant
from fadelab_emulation.backends.factory import make_backend
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.byte_watch import ByteWatch
from fadelab_emulation.cell_service import CellService
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.coordination_service import CoordinationService
from fadelab_emulation.delay_watch import DelayWatch
from fadelab_emulation.link_state import LinkTick
from fadelab_emulation.namespaces import NetworkNamespace
from fadelab_emulation.packet_class import class_marks
from fadelab_emulation.radio_service import EmulatorService, LinkBoard, RadioService
from fadelab_emulation.schedule import ScheduleWriter
from fadelab_emulation.self_calibration import calibrate_links
from fadelab_emulation.sources import AnyRadio, link_source
from fadelab_emulation.tick_loop import TickLoop
from fadelab_emulation.world import RadioWorld
from fadelab_proto import cell_pb2_grpc as cell_grpc
from fadelab_proto import radio_pb2_grpc as pb_grpc
from fadelab_proto.allocator import keep_freed_memory
from fadelab_proto.clock import Clock, SystemClock
from fadelab_proto.config import StrictModel
from fadelab_proto.ending import asked_to_end
from fadelab_proto.events import EventLog
from fadelab_proto.wire import server_options

_DIRECTIONS = ("up", "down")
_SWITCH_S = 0.0005
_FAREWELL_S = 1.0


class BackendFacts(StrictModel):
    """Which back-end was chosen for the links, and why; for the record."""

    variant: Variant
    why: str
    passed_over: dict[Variant, str] = Field(
        default={}, description="Better variants and why they were not taken."
    )

    @classmethod
    def of(cls, choice: Choice) -> "BackendFacts":
        """Return the facts of a choice."""
        return cls(variant=choice.variant, why=choice.why, passed_over=choice.passed_over)


class EmulatorConfig(StrictModel):
    """Everything that the emulator process needs."""

    devices: int = Field(ge=1, le=65535)
    drives: tuple[int, ...] | None = Field(
        default=None, description="Devices whose links this process drives; None: all."
    )
    seed: int = Field(ge=0)
    radio: AnyRadio
    backend: BackendFacts
    radio_socket: Path | None = Field(description="None: the radio plane is not served.")
    events_dir: Path
    schedule_path: Path
    achieved_path: Path
    duration_s: float | None = Field(
        default=None, gt=0, description="Emulated seconds after which the timeline ends by itself."
    )
    times_delays: bool = Field(
        default=False, description="Whether delays are programmed and so have to be timed."
    )


class Emulator:
    """One emulator around a back-end."""

    def __init__(
        self,
        config: EmulatorConfig,
        backend: LinkBackend,
        clock: Clock,
        log: EventLog,
        *,
        delay_watch: DelayWatch | None = None,
        byte_watch: ByteWatch | None = None,
    ) -> None:
        radio = config.radio
        self._config = config
        self._clock = clock
        self._log = log
        self._board = LinkBoard(config.devices, radio.tick_s, radio.uplink_power_w)
        self._schedule = ScheduleWriter(
            config.schedule_path, config.devices, radio.tick_s, config.seed, radio.lane_names
        )
        self._achieved = AchievedWriter(config.achieved_path)
        self._asyncio_loop = asyncio.get_running_loop()
        source = link_source(radio, config.devices, config.seed)
        self._world = source if isinstance(source, RadioWorld) else None
        self._ticks = TickLoop(
            source,
            backend,
            self._schedule,
            self._achieved,
            clock=clock,
            log=log,
            timescale=radio.timescale,
            delay_watch=delay_watch,
            until_s=config.duration_s,
            on_tick=self._post_tick,
            on_counters=self._post_counters,
            on_powers=self._post_powers,
        )
        self._final: LinkCounters | None = None
        self._byte_watch = byte_watch

    def begin(self, start_mono_s: float) -> None:
        """Start the timeline, unless the radio plane has been told to before."""
        self._ticks.begin(start_mono_s)

    def call(self, action: Callable[[], None]) -> None:
        """Have ``action`` carried out in the thread that the back-end belongs to."""
        self._ticks.call(action)

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve the radio plane and drive the links until ``stop`` is set or the timeline ends."""
        server = grpc.aio.server(options=server_options())
        radio = RadioService(
            self._board,
            self._ticks,
            max_power_w=self._config.radio.uplink_power_w,
            powers_matter=isinstance(self._config.radio, RadioConfig),
        )
        pb_grpc.add_RadioServicer_to_server(radio, server)
        division = None if self._world is None else self._world.division
        cell = CellService(division, self._ticks, self._config.devices)
        cell_grpc.add_CellServicer_to_server(cell, server)
        coordination = CoordinationService(
            self._board,
            self._ticks,
            uplink=lambda: None if self._world is None else self._world.uplink_terms(),
            full_power_w=self._config.radio.uplink_power_w,
        )
        pb_grpc.add_CoordinationServicer_to_server(coordination, server)
        control = EmulatorService(self._board, self._ticks)
        pb_grpc.add_EmulatorServicer_to_server(control, server)
        condition = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(condition, server)
        if self._config.radio_socket is not None:
            server.add_insecure_port(f"unix:{self._config.radio_socket}")
        await server.start()
        await condition.set("", health_pb2.HealthCheckResponse.SERVING)
        driving = asyncio.create_task(asyncio.to_thread(self._ticks.run))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((driving, stopping), return_when=asyncio.FIRST_COMPLETED)
        self._ticks.stop()
        stopping.cancel()
        try:
            await driving
            self._log_account()
        finally:
            self._schedule.close()
            self._achieved.close()
            self._board.close()
            await server.stop(_FAREWELL_S)

    def _post_tick(self, tick: LinkTick) -> None:
        self._asyncio_loop.call_soon_threadsafe(self._board.post, tick)

    def _post_powers(self, powers_w: dict[int, float]) -> None:
        self._asyncio_loop.call_soon_threadsafe(self._board.take_powers, powers_w)

    def _post_counters(self, counters: LinkCounters) -> None:
        self._final = counters
        if self._byte_watch is not None:
            self._byte_watch.update()
        self._asyncio_loop.call_soon_threadsafe(setattr, self._board, "counters", counters)

    def _log_account(self) -> None:
        lateness = self._ticks.lateness
        self._log.write(
            "lateness",
            ticks=len(lateness.seconds),
            p50_ms=round(lateness.percentile_ms(50), 4),
            p99_ms=round(lateness.percentile_ms(99), 4),
            max_ms=round(lateness.percentile_ms(100), 4),
        )
        if self._final is None:
            return
        watched = [] if self._byte_watch is None else self._byte_watch.accounts()
        lanes = self._config.radio.lane_names
        # Without packet classes there is one queue, which the other fields tell of.
        by_class = (
            [] if self._byte_watch is None or len(lanes) == 1 else self._byte_watch.by_class()
        )
        for device in self._config.drives or range(self._config.devices):
            fields: dict[str, float | int | list[int] | list[str]] = {}
            if watched:
                fields |= watched[device]
            if by_class:
                fields |= {"classes": list(lanes), **by_class[device]}
            for name, counters in zip(_DIRECTIONS, (self._final.up, self._final.down), strict=True):
                fields.update(_account(name, counters, device))
            self._log.write("link_account", device=device, **fields)


def _account(name: str, counters: DirectionCounters, device: int) -> dict[str, float | int]:
    return {
        f"{name}_wire_bytes": int(counters.wire_bytes[device]),
        f"{name}_wire_packets": int(counters.wire_packets[device]),
        f"{name}_programmed_bytes": round(float(counters.programmed_bytes[device]), 1),
        f"{name}_achieved_bytes": int(counters.achieved_bytes[device]),
        f"{name}_stretches": int(counters.stretches[device]),
        f"{name}_leaked_packets": int(counters.leaked_packets[device]),
        f"{name}_arrived_packets": int(counters.arrived_packets[device]),
        f"{name}_lost_packets": int(counters.lost_packets[device]),
        f"{name}_expected_losses": round(float(counters.expected_losses[device]), 3),
    }


def link_plan(config: EmulatorConfig) -> LinkPlan:
    """Return what links to make: each one's queue holds 60 ms at the mean rate of its first ticks.

    The timeline is stepped for ten emulated seconds beforehand: queues are sized once, so they
    must not hang on one moment's fading.
    """
    radio = config.radio
    source = link_source(radio, config.devices, config.seed)
    ticks = [radio.timescale.scaled(source.step()) for _ in range(max(1, round(10 / radio.tick_s)))]
    up_bps, down_bps = (
        np.mean(rates, axis=0)
        for rates in zip(*((tick.rate_up_bps, tick.rate_down_bps) for tick in ticks), strict=True)
    )
    return LinkPlan(
        queues=[
            QueueSizes.for_rates(float(up), float(down))
            for up, down in zip(up_bps, down_bps, strict=True)
        ],
        classes=class_marks(radio.classes),
        window=radio.window,
        seed=config.seed,
    )


def calibrate(config: EmulatorConfig, backend: LinkBackend, clock: Clock, log: EventLog) -> None:
    """Measure some links before anybody uses them, and note what was found."""
    first = link_source(config.radio, config.devices, config.seed).step()
    for found in calibrate_links(backend, config.radio.timescale.scaled(first), clock):
        log.write("calibrated", **found.as_event())


def take_precedence() -> str:
    """Ask for real-time scheduling of this process and the threads to come; say what it got.

    The whole process, not the tick's thread alone: a thread that holds the interpreter must not be
    set aside while the tick waits for it. An ordinary user is not granted it (sched(7)).
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return "fair"
    return "real-time"


async def emulate(
    config: EmulatorConfig, links_ready: Callable[[Sequence[NetworkNamespace]], None]
) -> None:
    """Make the links, hand their namespaces over, and serve until SIGTERM or SIGINT arrives.

    Args:
        config: the radio world and where things go.
        links_ready: called once with the devices' namespaces.

    Raises:
        NetlinkError: if the kernel refuses a link.
        ForeignNamespaceError: outside a sandbox.

    """
    scheduling = take_precedence()
    keep_freed_memory()
    # The tick's thread waits for the interpreter at most this long behind the radio plane's.
    sys.setswitchinterval(_SWITCH_S)
    clock = SystemClock()
    stop = asyncio.Event()
    # Its own waiting is in the kernel's seconds; what it logs is in the emulation's.
    emulated = SystemClock(config.radio.time_scale)
    with (
        asked_to_end(stop.set),
        EventLog(config.events_dir, "emulator", "0", emulated) as log,
    ):
        facts = config.backend
        backend = make_backend(facts.variant, link_plan(config), clock)
        try:
            log.write(
                "links_ready",
                backend=backend.name,
                variant=facts.variant.value,
                why=facts.why,
                passed_over=[f"{variant}: {why}" for variant, why in facts.passed_over.items()],
                loss_is_seeded=SKILLS[facts.variant].loss_is_seeded,
                window=config.radio.window.value,
                devices=config.devices,
                scheduling=scheduling,
                hub_settings=[f"{s.name}={s.value}" for s in backend.settings],
                device_settings=[f"{s.name}={s.value}" for s in backend.namespaces[0].settings],
            )
            if facts.variant is not Variant.DRY:
                calibrate(config, backend, clock, log)
            delays = DelayWatch(backend) if config.times_delays else None
            with contextlib.closing(ByteWatch(backend, log, delays)) as carried:
                links_ready(backend.namespaces)
                emulator = Emulator(
                    config, backend, clock, log, delay_watch=delays, byte_watch=carried
                )
                await emulator.serve(stop)
        finally:
            backend.close()
