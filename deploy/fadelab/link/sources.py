"""Timelines made of others: one for each direction, one device's alone, with outages on top."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from fadelab_emulation.contact.base import ContactState
from fadelab_emulation.contact.outages import OutageConfig, Outages
from fadelab_emulation.link_state import FloatArray, Lane, LinkTick, PacketLoss
from fadelab_emulation.timeline.link_source import LinkSource


class TwoWays:
    """The uplink of one timeline and the downlink of another.

    A link is closed only where both are: a direction that has nothing to carry while the other one
    has gets the least rate that a link can have.
    """

    def __init__(self, up: LinkSource, down: LinkSource) -> None:
        self._up = up
        self._down = down

    def step(self) -> LinkTick:
        """Return the next tick."""
        up, down = self._up.step(), self._down.step()
        return replace(
            up,
            down=down.down,
            delay_down_s=down.delay_down_s,
            jitter_down_s=down.jitter_down_s,
            ergodic_down_bps=down.ergodic_down_bps,
            is_open=up.is_open | down.is_open,
            predicted_contact_s=np.maximum(up.predicted_contact_s, down.predicted_contact_s),
        )

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Pass the wish on to the uplink's timeline."""
        self._up.set_uplink_power(device, power_w)


class OneDevice:
    """One device of a timeline of several."""

    def __init__(self, source: LinkSource, device: int) -> None:
        self._source = source
        self._chosen = slice(device, device + 1)

    def step(self) -> LinkTick:
        """Return the next tick, of one device."""
        tick: LinkTick = _of_arrays(self._source.step(), self._chosen)
        return replace(
            tick,
            up=tuple(self._lane(lane) for lane in tick.up),
            down=tuple(self._lane(lane) for lane in tick.down),
        )

    def _lane(self, lane: Lane) -> Lane:
        loss: PacketLoss = _of_arrays(lane.loss, self._chosen)
        return Lane(lane.rate_bps[self._chosen], loss)

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Pass the wish on."""
        self._source.set_uplink_power(self._chosen.start + device, power_w)


def _of_arrays(state: Any, chosen: slice) -> Any:
    """Return a dataclass with every array among its fields cut down to the chosen devices."""
    arrays: dict[str, FloatArray] = {
        field.name: getattr(state, field.name)[chosen]
        for field in fields(state)
        if isinstance(getattr(state, field.name), np.ndarray)
    }
    return replace(state, **arrays)


class WithOutages:
    """A timeline in which links are closed at given times besides."""

    def __init__(self, source: LinkSource, outages: Sequence[OutageConfig], devices: int) -> None:
        self._source = source
        self._outages = Outages(outages, devices)

    def step(self) -> LinkTick:
        """Return the next tick."""
        tick = self._source.step()
        before = ContactState(tick.is_open, tick.site, tick.predicted_contact_s)
        contact = self._outages.apply(tick.t_s, before)
        return replace(tick, is_open=contact.is_open, predicted_contact_s=contact.predicted_s)

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Pass the wish on."""
        self._source.set_uplink_power(device, power_w)
