"""What the tick loop follows, whether radio models, a recording or an imported trace yield it."""

from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

import numpy as np

from fadelab_emulation.contact.base import CONTACT_HORIZON_S
from fadelab_emulation.link_state import FloatArray, LinkTick, plain_tick
from fadelab_emulation.packet_class import AnyLoss, PacketClassConfig, split_down, split_up
from fadelab_emulation.rate.base import MIN_RATE_BPS


class LinkSource(Protocol):
    """Yields the state of every link, tick by tick."""

    def step(self) -> LinkTick:
        """Return the next tick, from index 0 on; its arrays are to be read, not written."""
        ...

    def set_uplink_power(self, device: int, power_w: float) -> None:
        """Set one device's transmit power from the next step on.

        ValueError, with a sentence for the device's user, where that cannot be.
        """
        ...


@dataclass(frozen=True, slots=True)
class LinkTerms:
    """What every timeline that no radio model computes is built for.

    Classes, losses, delays and jitters are what a trace that says nothing of them is filled in
    with; a recorded schedule brings its own.
    """

    devices: int
    tick_s: float
    seed: int
    classes: tuple[PacketClassConfig, ...] = ()
    packet_loss_up: AnyLoss = 0.0
    packet_loss_down: AnyLoss = 0.0
    delay_up_s: float = 0.0
    delay_down_s: float = 0.0
    jitter_up_s: float = 0.0
    jitter_down_s: float = 0.0


class TraceTicks:
    """Makes ticks of links of which a trace gives the rates alone."""

    def __init__(self, terms: LinkTerms) -> None:
        devices = terms.devices
        self._tick_s = terms.tick_s
        self._up = split_up(terms.classes, terms.packet_loss_up, devices)
        self._down = split_down(terms.classes, terms.packet_loss_down, devices)
        self._delay_up_s = np.full(devices, terms.delay_up_s)
        self._delay_down_s = np.full(devices, terms.delay_down_s)
        self._jitter_up_s = np.full(devices, terms.jitter_up_s)
        self._jitter_down_s = np.full(devices, terms.jitter_down_s)

    def tick(self, index: int, up_bps: FloatArray, down_bps: FloatArray) -> LinkTick:
        """Return a tick of links that have these rates, shape ``(devices,)``.

        A link is closed if it has no rate in either direction. In an open one, and as the rate
        that a closed one would have, no direction gets less than
        :data:`fadelab_emulation.rate.base.MIN_RATE_BPS`, for the reason given there. Nothing is
        known of when a window ends: while open, the longest contact is predicted.
        """
        is_open = (up_bps > 0) | (down_bps > 0)
        up_bps, down_bps = np.maximum(up_bps, MIN_RATE_BPS), np.maximum(down_bps, MIN_RATE_BPS)
        plain = plain_tick(up_bps, down_bps, index=index, t_s=index * self._tick_s, is_open=is_open)
        return replace(
            plain,
            up=self._up.lanes(up_bps),
            down=self._down.lanes(down_bps),
            predicted_contact_s=np.where(is_open, CONTACT_HORIZON_S, 0.0),
            delay_up_s=self._delay_up_s,
            delay_down_s=self._delay_down_s,
            jitter_up_s=self._jitter_up_s,
            jitter_down_s=self._jitter_down_s,
        )


def refuse_power(device: int, power_w: float, what: str) -> NoReturn:
    """Raise the ValueError with which a timeline that is fixed answers a request for power."""
    raise ValueError(
        f"device {device} asked for {power_w:g} W, but {what} does not depend on powers"
    )
