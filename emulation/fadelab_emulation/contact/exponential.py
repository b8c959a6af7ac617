"""Contacts that come and go at random, with no regard to where devices are."""

from typing import Literal

import numpy as np
from numpy.random import Generator
from pydantic import Field

from fadelab_emulation.contact.base import (
    CONTACT_HORIZON_S,
    SAME_INSTANT_S,
    ContactConfig,
    ContactState,
    Sight,
    nearest_site,
)
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_emulation.scene import Scene
from fadelab_proto.seeds import Stream, generator


class ExponentialConfig(ContactConfig):
    """Contact and inter-contact times drawn from exponential distributions."""

    kind: Literal["exponential"] = "exponential"
    mean_contact_s: float = Field(gt=0, le=1e6, description="Mean time for which a link is open.")
    mean_gap_s: float = Field(
        gt=0, le=1e6, description="Mean inter-contact time, for which it is closed."
    )

    def check_tick(self, tick_s: float) -> None:
        """Raise ValueError if most contacts or gaps would fall between two ticks."""
        for name, mean_s in (("contact", self.mean_contact_s), ("gap", self.mean_gap_s)):
            if mean_s < tick_s:
                raise ValueError(
                    f"a mean_{name}_s of {mean_s:g} s is shorter than the tick of {tick_s:g} s"
                )

    def build(self, scene: Scene) -> "Exponential":
        """Return the process in its stationary state."""
        return Exponential(self, scene)


class Exponential:
    """An alternating process per device, independent of all others and stationary from the start.

    Being without memory, it leaves nothing to predict but the mean. Links are seen once per tick:
    a contact or a gap that falls between two ticks is not seen at all, which lengthens the others.
    """

    def __init__(self, config: ExponentialConfig, scene: Scene) -> None:
        mean_s = (config.mean_gap_s, config.mean_contact_s)
        self._mean_s = mean_s
        self._draws: list[Generator] = [
            generator(scene.seed, Stream.CHANNEL, ChannelDraw.CONTACT, device)
            for device in range(scene.devices)
        ]
        first = np.array([draw.random() for draw in self._draws])
        self._is_open = first < config.mean_contact_s / sum(mean_s)
        self._ends_s = np.zeros(scene.devices)
        self._predicted_s = min(config.mean_contact_s, CONTACT_HORIZON_S)
        for device in range(scene.devices):
            self._draw_end(device)

    def update(self, sight: Sight) -> ContactState:
        """Begin the contacts and gaps that are due."""
        now_s = sight.t_s + SAME_INSTANT_S
        while (due := np.flatnonzero(self._ends_s <= now_s)).size:
            self._is_open[due] = ~self._is_open[due]
            for device in due.tolist():
                self._draw_end(device)
        return ContactState(
            is_open=self._is_open.copy(),
            site=nearest_site(sight.geometry),
            predicted_s=np.where(self._is_open, self._predicted_s, 0.0),
        )

    def _draw_end(self, device: int) -> None:
        mean_s = self._mean_s[int(self._is_open[device])]
        self._ends_s[device] += mean_s * self._draws[device].standard_exponential()
