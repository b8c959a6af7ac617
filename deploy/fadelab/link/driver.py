"""Carrying out a job's timeline over links that exist, and accounting for it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.link.job import LinkJob
from fadelab.link.recording import ACHIEVED, SCHEDULE
from fadelab.link.report import DeviceReport, TimingReport, WayReport
from fadelab.local.children import Channel
from fadelab_emulation.achieved import AchievedWriter
from fadelab_emulation.backends.base import LinkBackend, LinkCounters
from fadelab_emulation.backends.relay.process import RelayError
from fadelab_emulation.link_state import IntArray, LinkTick
from fadelab_emulation.schedule import ScheduleWriter
from fadelab_emulation.tick_loop import TickLoop
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog

_LEAD_S = 0.05
"""From the thread's start to the first tick, which is to be on time."""


class LinkDriver:
    """Drives a back-end's links as a job says.

    Args:
        job: the timeline.
        backend: the links; they remain the caller's.
        folder: where the schedule, what was achieved and the events are recorded, as in a run
            directory.

    """

    def __init__(self, job: LinkJob, backend: LinkBackend, folder: Path) -> None:
        links, devices = job.links, job.devices
        self._clock = SystemClock()
        self._tick_s = links.tick_s
        self._log = EventLog(folder / "events", "emulator", "0", SystemClock(links.time_scale))
        self._schedule = ScheduleWriter(
            folder / SCHEDULE, devices, links.tick_s, job.seed, links.lane_names
        )
        self._achieved = AchievedWriter(folder / ACHIEVED)
        self._ticks = TickLoop(
            job.source(),
            backend,
            self._schedule,
            self._achieved,
            clock=self._clock,
            log=self._log,
            timescale=links.timescale,
            on_tick=self._see,
            on_counters=self._count,
        )
        self._in_force: Callable[[], None] = lambda: None
        self._counters: LinkCounters | None = None
        self._was_open = np.zeros(devices, dtype=np.bool_)
        self._windows: IntArray = np.zeros(devices, dtype=np.int64)
        self._closed_ticks: IntArray = np.zeros(devices, dtype=np.int64)

    async def drive(self, stop: asyncio.Event, in_force: Callable[[], None]) -> None:
        """Carry the timeline out from its beginning until ``stop`` is set.

        Args:
            stop: ends it.
            in_force: called in this event loop once the first tick holds.

        Raises:
            FadelabError: if links could no longer be driven.

        """
        loop = asyncio.get_running_loop()

        def hold() -> None:
            loop.call_soon_threadsafe(in_force)

        self._in_force = hold
        _take_precedence()
        driving = asyncio.create_task(asyncio.to_thread(self._ticks.run))
        stopping = asyncio.create_task(stop.wait())
        self._ticks.begin(self._clock.now_s() + _LEAD_S)
        try:
            await asyncio.wait((driving, stopping), return_when=asyncio.FIRST_COMPLETED)
            self._ticks.stop()
            await driving
        except (OSError, ValueError, RelayError) as error:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"the links can no longer be driven: {error}"
            ) from error
        finally:
            stopping.cancel()
            self._schedule.close()
            self._achieved.close()
            self._log.close()

    def tell(self, outside: Channel) -> None:
        """Send reports: one message for each device, and one on timing."""
        late = self._ticks.lateness
        timing = TimingReport(
            ticks=len(late.seconds),
            late_median_ms=late.percentile_ms(50),
            late_p99_ms=late.percentile_ms(99),
            late_max_ms=late.percentile_ms(100),
        )
        counters = self._counters
        if counters is not None:
            for device in range(len(self._was_open)):
                report = DeviceReport(
                    device=device,
                    up=WayReport.of(counters.up, device),
                    down=WayReport.of(counters.down, device),
                    windows=int(self._windows[device]),
                    closed_s=round(float(self._closed_ticks[device]) * self._tick_s, 6),
                )
                outside.send(device_report=report.model_dump())
        outside.send(timing=timing.model_dump())

    def _see(self, tick: LinkTick) -> None:
        self._windows += tick.is_open & ~self._was_open
        self._closed_ticks += ~tick.is_open
        self._was_open = tick.is_open
        if tick.index == 0:
            self._in_force()

    def _count(self, counters: LinkCounters) -> None:
        self._counters = counters


def _take_precedence() -> None:
    """Have ticks go first where that is granted; an ordinary user is not (sched(7))."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return
