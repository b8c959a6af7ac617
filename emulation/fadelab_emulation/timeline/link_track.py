"""One direction of one link over time, as plain arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fadelab_emulation.link_state import FloatArray, LinkTick
from fadelab_emulation.schedule import ScheduleReader


@dataclass(frozen=True, slots=True)
class LinkTrack:
    """What one link was programmed to in one direction; arrays have shape ``(ticks,)``."""

    tick_s: float
    rate_bps: FloatArray
    """Layer-2 rate, 0 while the link is closed."""
    delay_s: FloatArray
    loss: FloatArray
    """Mean share of packets lost, of the default class where lanes are taken together."""

    @classmethod
    def of_reader(
        cls, reader: ScheduleReader, device: int, *, uplink: bool, lane: int | None = None
    ) -> "LinkTrack":
        """Return a recorded link's track, of one lane or of all lanes' rates together.

        Raises:
            ValueError: there is no such device or lane.

        """
        _check(device, reader.devices, lane, len(reader.lanes))
        side = "up" if uplink else "down"
        if lane is None:
            rate_bps = reader.column(f"rate_{side}_bps")
        else:
            rate_bps = reader.lane_rate_bps(lane, uplink=uplink)
        loss = reader.lane_loss(lane or 0, uplink=uplink).mean
        return cls(
            tick_s=reader.tick_s,
            rate_bps=rate_bps[:, device].astype(np.float64) * reader.is_open[:, device],
            delay_s=reader.column(f"delay_{side}_s")[:, device].astype(np.float64),
            loss=loss[:, device].copy(),
        )

    @classmethod
    def of_ticks(
        cls,
        ticks: Sequence[LinkTick],
        tick_s: float,
        device: int,
        *,
        uplink: bool,
        lane: int | None = None,
    ) -> "LinkTrack":
        """Return the same of ticks that are not recorded."""
        if ticks:
            _check(device, ticks[0].devices, lane, len(ticks[0].up))
        rows = [_instant(tick, device, lane, uplink=uplink) for tick in ticks]
        rate_bps, delay_s, loss = np.array(rows, dtype=np.float64).reshape(-1, 3).T
        return cls(tick_s, rate_bps, delay_s, loss)


def _instant(
    tick: LinkTick, device: int, lane: int | None, *, uplink: bool
) -> tuple[float, float, float]:
    lanes = tick.up if uplink else tick.down
    taken = lanes if lane is None else (lanes[lane],)
    rate_bps = sum(float(one.rate_bps[device]) for one in taken)
    delay_s = tick.delay_up_s if uplink else tick.delay_down_s
    loss = float(taken[0].loss.mean[device])
    return rate_bps * bool(tick.is_open[device]), float(delay_s[device]), loss


def _check(device: int, devices: int, lane: int | None, lanes: int) -> None:
    if not 0 <= device < devices:
        raise ValueError(f"there is no device {device} among {devices}")
    if lane is not None and not 0 <= lane < lanes:
        raise ValueError(f"there is no packet class {lane} among {lanes}")
