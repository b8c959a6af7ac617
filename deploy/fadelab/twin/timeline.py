"""A run's recorded timeline as devices of the twin meet it, with transmit powers of their own."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab.results.goodput import ProgrammedRate
from fadelab.results.record import RunRecord, number
from fadelab_agent.radio import LinkView
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.timeline.formula_twin import TCP, FormulaTwin
from fadelab_emulation.timeline.link_track import LinkTrack

FloatArray = NDArray[np.float64]
_COLUMNS = (
    "rate_up_bps",
    "rate_down_bps",
    "snr_up_db",
    "predicted_contact_s",
    "delay_up_s",
    "delay_down_s",
    "loss_up",
    "loss_down",
)
_ROUNDING = 1e-6
"""Of a tick: a moment that is computed to be a tick's beginning belongs to that tick."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a message."""

    end_s: float
    """When its last byte arrives; infinite if the window ends before."""
    share: float
    """Of its bytes that arrived by then, or by the window's end."""


class TwinLink:
    """One device's link.

    Args:
        tick_s: length of a tick.
        is_open: whether in contact, shape ``(ticks,)``, as all others.
        columns: the recorded columns by name.
        power_w: transmit power that was in force in the recorded run.

    """

    def __init__(
        self,
        tick_s: float,
        is_open: NDArray[np.bool_],
        columns: dict[str, FloatArray],
        power_w: FloatArray,
    ) -> None:
        self.tick_s = tick_s
        self.end_s = len(is_open) * tick_s
        self._open = is_open
        self._columns = columns
        self._power_w = power_w

    # -- windows -------------------------------------------------------------------------------

    def tick_at(self, t_s: float) -> int:
        """Return the tick that a moment lies in."""
        return math.floor(t_s / self.tick_s + _ROUNDING)

    def is_open(self, t_s: float) -> bool:
        """Whether the device is in contact at a moment."""
        tick = self.tick_at(t_s)
        return tick < len(self._open) and bool(self._open[tick])

    def next_open_s(self, t_s: float) -> float:
        """Return the next moment in contact, this one if it is; infinite if there is none."""
        tick = self.tick_at(t_s)
        ahead = np.flatnonzero(self._open[tick:]) if tick < len(self._open) else np.zeros(0)
        return max(t_s, (tick + int(ahead[0])) * self.tick_s) if len(ahead) else math.inf

    def window_end_s(self, t_s: float) -> float:
        """Return the end of the window that a moment lies in; the moment itself if in none."""
        if not self.is_open(t_s):
            return t_s
        tick = self.tick_at(t_s)
        closed = np.flatnonzero(~self._open[tick:])
        return (tick + int(closed[0]) if len(closed) else len(self._open)) * self.tick_s

    # -- what a device sees --------------------------------------------------------------------

    def view(self, t_s: float, power_w: float) -> LinkView:
        """Return what the modem would report at a moment if it sent with this power."""
        tick = min(self.tick_at(t_s), len(self._open) - 1)
        at = {name: float(column[tick]) for name, column in self._columns.items()}
        gain = power_w / self._power_w[tick] if self._power_w[tick] > 0 else 1.0
        is_open = bool(self._open[tick])
        return LinkView(
            is_open=is_open,
            snr_db=at["snr_up_db"] + (10 * math.log10(gain) if gain > 0 else 0.0),
            rate_up_bps=float(self._uplink(tick, tick + 1, power_w)[0]),
            rate_down_bps=at["rate_down_bps"],
            predicted_contact_s=at["predicted_contact_s"],
            power_w=power_w,
            reported_s=tick * self.tick_s,
        )

    def delay_s(self, t_s: float, *, uplink: bool) -> float:
        """Return the one-way delay at a moment."""
        tick = min(self.tick_at(t_s), len(self._open) - 1)
        return float(self._columns["delay_up_s" if uplink else "delay_down_s"][tick])

    # -- what it carries -----------------------------------------------------------------------

    def recorded_uplink(self) -> LinkTrack:
        """Return the uplink as it was programmed in the run."""
        return self._track(0, len(self._open), self._columns["rate_up_bps"], "up")

    def upload(
        self, message_bytes: float, start_s: float, until_s: float, power_w: float
    ) -> Carried:
        """Send a message with a power, until the window ends."""
        first, last = self._span(start_s, until_s)
        track = self._track(first, last, self._uplink(first, last, power_w), "up")
        return self._carry(track, first, message_bytes, start_s, until_s)

    def download(self, message_bytes: float, start_s: float, until_s: float) -> Carried:
        """Receive a message, until the window ends."""
        first, last = self._span(start_s, until_s)
        rate_bps = self._columns["rate_down_bps"][first:last]
        track = self._track(first, last, rate_bps, "down")
        return self._carry(track, first, message_bytes, start_s, until_s)

    def _span(self, start_s: float, until_s: float) -> tuple[int, int]:
        """Return the first tick of a time, and the one after its last."""
        ticks = len(self._open)
        last = ticks if math.isinf(until_s) else math.ceil(until_s / self.tick_s - _ROUNDING)
        return self.tick_at(start_s), min(ticks, last)

    def _uplink(self, first: int, last: int, power_w: float) -> FloatArray:
        """Return the rates ``B log2(1 + p H)`` of some ticks, B and H as they were recorded.

        Where the power is the recorded one, so are the rates; where no SNR is known, power has
        no effect.
        """
        rate_bps = self._columns["rate_up_bps"][first:last]
        was_w = self._power_w[first:last]
        with np.errstate(over="ignore", invalid="ignore"):
            snr = 10 ** (self._columns["snr_up_db"][first:last] / 10)
            known = np.isfinite(snr) & (snr > 0) & (was_w > 0) & (was_w != power_w)
        snr = np.where(known, snr, 1.0)
        gain = np.where(known, power_w / np.where(was_w > 0, was_w, 1.0), 1.0)
        rates: FloatArray = rate_bps * np.where(known, np.log1p(gain * snr) / np.log1p(snr), 1.0)
        return rates

    def _track(self, first: int, last: int, rate_bps: FloatArray, side: str) -> LinkTrack:
        return LinkTrack(
            self.tick_s,
            rate_bps * self._open[first:last],
            self._columns[f"delay_{side}_s"][first:last],
            self._columns[f"loss_{side}"][first:last],
        )

    def _carry(
        self, track: LinkTrack, first: int, message_bytes: float, start_s: float, until_s: float
    ) -> Carried:
        before_s = first * self.tick_s
        message, offered_s = np.array([message_bytes]), np.array([max(0.0, start_s - before_s)])
        end_s = FormulaTwin(track, resends=True).transfer_end_s(message, offered_s)
        arrival_s = before_s + float(end_s[0])
        if math.isfinite(arrival_s) and arrival_s <= until_s:
            return Carried(arrival_s, 1.0)
        through = ProgrammedRate(track.rate_bps * (1 - track.loss), track.tick_s)
        bits = through.bits(float(offered_s[0]), until_s - before_s)
        return Carried(math.inf, min(1.0, bits / (8 * float(TCP.wire_bytes(message)[0]))))


class Timeline:
    """All links of a run up to its end, where windows end too.

    Args:
        schedule: what was recorded.
        power_w: transmit power in force, shape ``(ticks, devices)``, of the same ticks.

    """

    def __init__(self, schedule: ScheduleReader, power_w: FloatArray) -> None:
        self.devices = schedule.devices
        self._tick_s = schedule.tick_s
        ticks = power_w.shape[0]
        self._power_w = power_w
        self._open = schedule.is_open[:ticks]
        self._columns = {name: schedule.column(name)[:ticks] for name in _COLUMNS}

    @classmethod
    def of(cls, record: RunRecord, schedule: ScheduleReader) -> "Timeline":
        """Return that of a run with the powers that the emulator says were in force."""
        ticks = min(schedule.ticks, math.ceil(record.duration_s / schedule.tick_s - _ROUNDING))
        power_w = np.full((ticks, schedule.devices), record.experiment.radio.uplink_power_w)
        for event in record.of("emulator", "power_in_force"):
            device, tick = int(number(event, "device")), int(number(event, "tick"))
            if device < schedule.devices:
                power_w[tick:, device] = number(event, "power_w")
        return cls(schedule, power_w)

    def link(self, device: int) -> TwinLink:
        """Return one device's link."""
        columns = {
            name: column[:, device].astype(np.float64) for name, column in self._columns.items()
        }
        return TwinLink(self._tick_s, self._open[:, device], columns, self._power_w[:, device])


def powers_known(record: RunRecord) -> bool:
    """Whether it is recorded which powers were in force, if others than the maximum were."""
    most_w = record.experiment.radio.uplink_power_w
    lowered = any(
        0 < number(used, "power_w") < most_w for used in record.of("agent", "contact_used")
    )
    return not lowered or bool(record.of("emulator", "power_in_force"))


def powers_matter(record: RunRecord) -> bool:
    """Whether links follow transmit powers: a given timeline does not."""
    return isinstance(record.experiment.radio, RadioConfig)
