"""Timing links' delays while a run goes on, without getting into its way."""

from dataclasses import dataclass

import numpy as np

from fadelab_emulation.backends.base import LinkBackend, LinkSample
from fadelab_emulation.delay_probe import PROBE_FRAME_BYTES, DelayProbe
from fadelab_emulation.link_state import FloatArray, IntArray, LinkTick

_PERIOD_S = 1.0
_MOST_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class TimedDelay:
    """One probe, in seconds of the wall clock."""

    device: int
    direction: str
    tick: int
    """The tick in force when it was sent."""
    programmed_s: float
    jitter_s: float
    achieved_s: float
    """What the probe took; see
    :class:`fadelab_emulation.self_calibration.LinkCalibration`."""
    transmission_s: float
    """Time that a probe takes at the programmed rate."""


class DelayWatch:
    """Sends a probe over every link about once a second, while it is open, idle and has a delay.

    A probe is 62 bytes each way; behind other packets it would time their transmission, so busy
    links are left alone.
    """

    def __init__(self, backend: LinkBackend) -> None:
        self._backend = backend
        self._probe = DelayProbe(backend.namespaces, backend.server_address)
        devices = len(backend.namespaces)
        self.sent_bytes: IntArray = np.zeros(devices, dtype=np.int64)
        """Layer-2 bytes of the probes sent each way, shape ``(devices,)``."""
        self._due_s: FloatArray = np.zeros(devices)
        self._sent_with: dict[int, LinkTick] = {}

    def after_tick(self, tick: LinkTick, sample: LinkSample, now_s: float) -> list[TimedDelay]:
        """Take in probes that have arrived, send the next ones.

        Args:
            tick: what the links were just told to do, in wall seconds.
            sample: the reading of shapers made since.
            now_s: the wall clock.

        """
        found = [
            self._timed(arrived.device, arrived.delay_s, uplink=arrived.uplink)
            for arrived in self._probe.drain(self._sent_with)
        ]
        chosen = self._idle(tick, sample, now_s)[:_MOST_AT_ONCE].tolist()
        for device in chosen:
            self._sent_with[device] = tick
            self._due_s[device] = now_s + _PERIOD_S
        self._probe.send(chosen)
        self.sent_bytes[chosen] += PROBE_FRAME_BYTES
        return found

    def arrive(self, device: int) -> None:
        """Go on at the end of a link that was made anew in another namespace."""
        self._probe.reopen(device, self._backend.namespaces[device])

    def close(self) -> None:
        """Close the probe's sockets."""
        self._probe.close()

    def _idle(self, tick: LinkTick, sample: LinkSample, now_s: float) -> IntArray:
        devices = sample.devices
        waiting = sample.up.backlog_bytes + sample.down.backlog_bytes
        delayed = (tick.delay_up_s + tick.delay_down_s)[devices] > 0
        idle = tick.is_open[devices] & delayed & (waiting == 0) & (self._due_s[devices] <= now_s)
        chosen: IntArray = devices[idle]
        return chosen

    def _timed(self, device: int, delay_s: float, *, uplink: bool) -> TimedDelay:
        tick = self._sent_with[device]
        rate_bps = (tick.up if uplink else tick.down)[0].rate_bps[device]
        return TimedDelay(
            device=device,
            direction="up" if uplink else "down",
            tick=tick.index,
            programmed_s=float((tick.delay_up_s if uplink else tick.delay_down_s)[device]),
            jitter_s=float((tick.jitter_up_s if uplink else tick.jitter_down_s)[device]),
            achieved_s=delay_s,
            transmission_s=8 * PROBE_FRAME_BYTES / float(rate_bps),
        )
