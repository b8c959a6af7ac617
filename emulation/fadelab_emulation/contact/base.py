"""The contract of a contact model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.scene import Scene
from fadelab_proto.config import StrictModel

CONTACT_HORIZON_S = 3600.0
"""The longest remaining contact that is ever predicted: a device that stands in coverage."""


@dataclass(frozen=True, slots=True)
class ContactState:
    """Which links are open, and for how long as far as a device can tell; shape ``(devices,)``."""

    is_open: BoolArray
    predicted_s: FloatArray
    """Predicted remaining contact, 0 while closed, at most :data:`CONTACT_HORIZON_S`."""


class Contact(Protocol):
    """Opens and closes every device's link."""

    def update(self, motion: Motion) -> ContactState:
        """Return the state at the next instant; called once per tick, in order."""
        ...


class ContactConfig(StrictModel, ABC):
    """The base of every contact model's settings."""

    @abstractmethod
    def build(self, scene: Scene) -> Contact:
        """Return the model for the scene's devices."""
