"""What links are told to do, as two arrays, so that a few comparisons find what a tick changes."""

from typing import NamedTuple

import numpy as np

from fadelab_emulation.backends.impairment.base import LaneLoss, PortState
from fadelab_emulation.link_state import FloatArray, LinkTick

_LOSS_ROWS = len(LaneLoss._fields)


class Changes(NamedTuple):
    """Where a tick differs from what was sent, for links that are open; both in order."""

    shapers: list[int]
    """Places of rates; see :attr:`DesiredState.rate_bps`."""
    ports: list[int]
    """Ports at which losses, delay or jitter are new: ``direction * devices + device``."""


class DesiredState:
    """The values last sent.

    Rates: all uplink lanes, then all downlink lanes, each with one value for each device. Of the
    ports, likewise, for each direction: the losses of all lanes, the delay and the jitter.
    """

    def __init__(self, devices: int, lanes: int, rate_bps: float) -> None:
        """Start with this rate everywhere and nothing lost or delayed."""
        self._devices = devices
        self._lanes = lanes
        self._seen = b""
        self._open = np.zeros(2 * lanes * devices, dtype=np.bool_)
        self.rate_bps: FloatArray = np.full(2 * lanes * devices, rate_bps)
        """The rates in force, shape ``(2 * lanes * devices,)``."""
        none = LaneLoss(in_good=0.0, in_bad=0.0, to_bad=0.0, to_good=1.0)
        port = np.array([*none * lanes, 0.0, 0.0])
        self._ports: FloatArray = np.tile(port[:, None], (2, 1, devices)).reshape(2, -1, devices)

    def take(self, tick: LinkTick, *, moved: bool) -> Changes:
        """Take over what differs for links that are open, and tell where.

        ``moved``: whether another set of links is open than at the last call. Raises ValueError
        for a tick of other links than these.
        """
        rates = np.concatenate([lane.rate_bps for lane in tick.up + tick.down])
        if tick.devices != self._devices or rates.shape != self.rate_bps.shape:
            raise ValueError(
                f"a tick of {len(tick.up)} uplink and {len(tick.down)} downlink lanes for "
                f"{tick.devices} devices does not fit {self._devices} links with {self._lanes}"
            )
        if moved:
            self._open = np.tile(tick.is_open, 2 * self._lanes)
        differs = rates != self.rate_bps
        differs &= self._open
        shapers = differs.nonzero()[0]
        self.rate_bps[shapers] = rates[shapers]
        return Changes(shapers.tolist(), self._take_ports(tick, moved=moved))

    def port_state(self, port: int) -> PortState:
        """Return what befalls packets at a port."""
        direction, device = divmod(port, self._devices)
        *losses, delay_s, jitter_s = self._ports[direction, :, device].tolist()
        starts = range(0, len(losses), _LOSS_ROWS)
        lanes = tuple(LaneLoss(*losses[start : start + _LOSS_ROWS]) for start in starts)
        return PortState(lanes, delay_s, jitter_s)

    def mean_loss(self) -> FloatArray:
        """Return the losses in force, shape ``(lanes, 2 * devices)``."""
        losses = self._ports[:, : self._lanes * _LOSS_ROWS]
        table = losses.reshape(2, self._lanes, _LOSS_ROWS, self._devices)
        in_good, in_bad, to_bad, to_good = table.transpose(2, 1, 0, 3)
        moves = to_bad + to_good
        bad = np.divide(to_bad, moves, out=np.zeros_like(moves), where=moves > 0)
        mean: FloatArray = in_good + bad * (in_bad - in_good)
        return mean.reshape(self._lanes, 2 * self._devices)

    def _take_ports(self, tick: LinkTick, *, moved: bool) -> list[int]:
        rows = _port_rows(tick)
        seen = b"".join([row.tobytes() for row in rows])
        # Losses and delays hold for long: mostly a look at their bytes is all they need.
        if seen == self._seen and not moved:
            return []
        self._seen = seen
        wanted = np.concatenate(rows).reshape(self._ports.shape)
        differs = (wanted != self._ports) & tick.is_open
        np.copyto(self._ports, wanted, where=differs)
        ports: list[int] = np.flatnonzero(differs.any(axis=1)).tolist()
        return ports


def _port_rows(tick: LinkTick) -> list[FloatArray]:
    rows: list[FloatArray] = []
    for lanes, delay_s, jitter_s in (
        (tick.up, tick.delay_up_s, tick.jitter_up_s),
        (tick.down, tick.delay_down_s, tick.jitter_down_s),
    ):
        for lane in lanes:
            loss = lane.loss
            rows += (loss.in_good, loss.in_bad, loss.to_bad, loss.to_good)
        rows += (delay_s, jitter_s)
    return rows
