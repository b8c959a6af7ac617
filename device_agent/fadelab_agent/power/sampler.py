"""Sampling the board's power while the agent runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from fadelab_agent.power.base import PowerSensor
from fadelab_agent.power.ina3221 import Ina3221
from fadelab_agent.power.pmic import RaspberryPmic
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog

_SAMPLES_IN_EVENT = 50
_SENSORS: tuple[Callable[[], PowerSensor | None], ...] = (Ina3221.find, RaspberryPmic.find)


def find_sensor(
    finders: Sequence[Callable[[], PowerSensor | None]] = _SENSORS,
) -> PowerSensor | None:
    """Return the first sensor that this machine has; None if it has none."""
    return next((sensor for find in finders if (sensor := find()) is not None), None)


@contextlib.asynccontextmanager
async def power_sampled(clock: Clock, log: EventLog, *, wanted: bool) -> AsyncIterator[None]:
    """Sample the power of this machine, if that is wanted, for as long as the block lasts."""
    if not wanted:
        yield
        return
    # Asking whether there is a sensor may start a program.
    sensor = await asyncio.to_thread(find_sensor)
    sampling = asyncio.create_task(sample_power(sensor, clock, log))
    try:
        yield
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)


async def sample_power(sensor: PowerSensor | None, clock: Clock, log: EventLog) -> None:
    """Log what the sensor reads, many samples to an event, until cancelled.

    The first event, ``power_source``, says who measures; without a sensor it is the last.
    """
    log.write("power_source", source=None if sensor is None else sensor.name)
    if sensor is None:
        return
    times: list[float] = []
    powers: list[float] = []
    try:
        due_s = clock.now_s()
        while True:
            power_w = await asyncio.to_thread(sensor.read_w)
            now_s = clock.now_s()
            if power_w is not None:
                times.append(round(now_s, 6))
                powers.append(round(power_w, 4))
            if len(times) >= _SAMPLES_IN_EVENT:
                log.write("power", at_mono_s=times, power_w=powers)
                times, powers = [], []
            due_s = max(due_s + sensor.every_s, now_s)
            await clock.sleep_until(due_s)
    finally:
        if times:
            log.write("power", at_mono_s=times, power_w=powers)
