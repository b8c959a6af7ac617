"""The emulator process: make the links, serve the radio plane, carry the timeline out, account."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from pydantic import Field

from fadelab_emulation.backends.base import DirectionCounters, LinkBackend, LinkCounters
from fadelab_emulation.backends.lite import LiteBackend
from fadelab_emulation.backends.topology import QueueSizes
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import LinkTick
from fadelab_emulation.namespaces import NetworkNamespace
from fadelab_emulation.radio_service import EmulatorService, LinkBoard, RadioService
from fadelab_emulation.schedule import ScheduleWriter
from fadelab_emulation.tick_loop import TickLoop
from fadelab_emulation.world import RadioWorld
from fadelab_proto import radio_pb2_grpc as pb_grpc
from fadelab_proto.clock import Clock, SystemClock
from fadelab_proto.config import StrictModel
from fadelab_proto.events import EventLog
from fadelab_proto.wire import server_options

_DIRECTIONS = ("up", "down")
_SWITCH_S = 0.0005
_FAREWELL_S = 1.0


class EmulatorConfig(StrictModel):
    """Everything that the emulator process needs."""

    devices: int = Field(ge=1, le=65535)
    seed: int = Field(ge=0)
    radio: RadioConfig
    radio_socket: Path
    events_dir: Path
    schedule_path: Path


class Emulator:
    """One emulator around a back-end."""

    def __init__(
        self, config: EmulatorConfig, backend: LinkBackend, clock: Clock, log: EventLog
    ) -> None:
        radio = config.radio
        self._config = config
        self._clock = clock
        self._log = log
        self._board = LinkBoard(config.devices, radio.tick_s, radio.uplink_power_w)
        self._schedule = ScheduleWriter(
            config.schedule_path, config.devices, radio.tick_s, config.seed
        )
        self._asyncio_loop = asyncio.get_running_loop()
        self._ticks = TickLoop(
            RadioWorld(radio, config.devices, config.seed),
            backend,
            self._schedule,
            tick_s=radio.tick_s,
            clock=clock,
            log=log,
            on_tick=self._post_tick,
            on_counters=self._post_counters,
        )
        self._final: LinkCounters | None = None

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve the radio plane and drive the links until ``stop`` is set."""
        server = grpc.aio.server(options=server_options())
        radio = RadioService(self._board, self._ticks, self._config.radio.uplink_power_w)
        pb_grpc.add_RadioServicer_to_server(radio, server)
        control = EmulatorService(self._board, self._ticks)
        pb_grpc.add_EmulatorServicer_to_server(control, server)
        server.add_insecure_port(f"unix:{self._config.radio_socket}")
        await server.start()
        driving = asyncio.create_task(asyncio.to_thread(self._ticks.run))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((driving, stopping), return_when=asyncio.FIRST_COMPLETED)
        self._ticks.stop()
        await driving
        stopping.cancel()
        self._schedule.close()
        self._log_account()
        self._board.close()
        await server.stop(_FAREWELL_S)

    def _post_tick(self, tick: LinkTick) -> None:
        self._asyncio_loop.call_soon_threadsafe(self._board.post, tick)

    def _post_counters(self, counters: LinkCounters) -> None:
        self._final = counters
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
        for device in range(self._config.devices):
            fields: dict[str, float | int] = {}
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
    }


def queue_sizes(radio: RadioConfig, devices: int, seed: int) -> list[QueueSizes]:
    """Return each link's queue: 60 ms at the mean rate of its first ticks.

    The world is stepped for ten emulated seconds beforehand: queues are sized once, so they must
    not hang on one moment's fading.
    """
    world = RadioWorld(radio, devices, seed)
    ticks = [world.step() for _ in range(max(1, round(10 / radio.tick_s)))]
    return [
        QueueSizes.for_rates(
            sum(float(tick.rate_up_bps[device]) for tick in ticks) / len(ticks),
            sum(float(tick.rate_down_bps[device]) for tick in ticks) / len(ticks),
        )
        for device in range(devices)
    ]


def _take_precedence() -> str:
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
    scheduling = _take_precedence()
    # The tick's thread waits for the interpreter at most this long behind the radio plane's.
    sys.setswitchinterval(_SWITCH_S)
    clock = SystemClock()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with EventLog(config.events_dir, "emulator", "0", clock) as log:
        backend = LiteBackend(queue_sizes(config.radio, config.devices, config.seed), clock)
        log.write(
            "links_ready",
            backend=backend.name,
            devices=config.devices,
            scheduling=scheduling,
            hub_settings=[f"{s.name}={s.value}" for s in backend.settings],
            device_settings=[f"{s.name}={s.value}" for s in backend.namespaces[0].settings],
        )
        links_ready(backend.namespaces)
        try:
            await Emulator(config, backend, clock, log).serve(stop)
        finally:
            backend.close()
