"""The contract of a contact model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from fadelab_emulation.link_state import BoolArray, FloatArray, IntArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.scene import Geometry, Scene
from fadelab_proto.config import StrictModel

CONTACT_HORIZON_S = 3600.0
"""The longest remaining contact that is ever predicted: a device that stands in coverage."""

SAME_INSTANT_S = 1e-6
"""Instants nearer to each other are one: that of a tick is a rounded product."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a contact model decides by, at one instant."""

    t_s: float
    """Emulated seconds since the start."""
    motion: Motion
    geometry: Geometry
    snr_db: FloatArray
    """Mean downlink signal-to-noise ratio from every site, shape ``(devices, sites)``: path loss
    and shadowing without fading, at the full downlink power. NaN where the rate model knows no
    noise; see :attr:`ContactConfig.needs_snr`."""


@dataclass(frozen=True, slots=True)
class ContactState:
    """Which links are open, to which site, and for how long as far as a device can tell.

    All arrays have shape ``(devices,)``.
    """

    is_open: BoolArray
    site: IntArray
    """The serving site; of a closed link, the one that would serve."""
    predicted_s: FloatArray
    """Remaining contact predicted without error from what a device can know, 0 while closed, at
    most :data:`CONTACT_HORIZON_S`."""
    announced_s: FloatArray | None = None
    """Time until the next outage that devices were told of, infinite without one; None where
    nobody was told of any."""

    def only(self, allowed: BoolArray) -> "ContactState":
        """Return this state with every link closed that is not ``allowed``."""
        is_open = self.is_open & allowed
        return replace(self, is_open=is_open, predicted_s=np.where(is_open, self.predicted_s, 0.0))


class Contact(Protocol):
    """Opens and closes every device's link."""

    def update(self, sight: Sight) -> ContactState:
        """Return the state at the next instant; called once per tick, in order."""
        ...


class ContactConfig(StrictModel, ABC):
    """The base of every contact model's settings."""

    needs_snr: ClassVar[bool] = False
    """Whether the model decides by SNR and so needs a rate model with a noise power."""

    def check_tick(self, tick_s: float) -> None:
        """Raise ValueError if the model cannot be evaluated on this tick."""

    @abstractmethod
    def build(self, scene: Scene) -> Contact:
        """Return the model for the scene's devices."""


def nearest_site(geometry: Geometry) -> IntArray:
    """Return the number of the site nearest to each device, shape ``(devices,)``."""
    nearest: IntArray = np.argmin(geometry.horizontal_m, axis=1)
    return nearest
