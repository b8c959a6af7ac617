"""The contract of a mobility model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_emulation.scene import Scene
from fadelab_proto.config import StrictModel


@dataclass(frozen=True, slots=True)
class Motion:
    """Where all devices are at one instant, and how they move from there."""

    position_m: FloatArray
    """Shape ``(devices, 2)``."""
    velocity_mps: FloatArray
    """Shape ``(devices, 2)``; zero for a device that stands."""
    travelled_m: FloatArray
    """Length of the path since the instant before, shape ``(devices,)``: turns included."""
    present: BoolArray | None = None
    """Which devices are in the area at all, shape ``(devices,)``; None for all of them. One that
    is absent keeps its last place (or its first one to come) and has no contact."""


class Mobility(Protocol):
    """Moves all devices at once through emulated time."""

    def advance(self, duration_s: float) -> Motion:
        """Move on by ``duration_s`` seconds (0 asks for the present) and return the new motion."""
        ...


class MobilityConfig(StrictModel, ABC):
    """The base of every mobility model's settings."""

    def check_fits(self, area_m: tuple[float, float], base_station_m: tuple[float, float]) -> None:
        """Raise ValueError if these settings would place a device outside the area."""

    @abstractmethod
    def build(self, scene: Scene) -> Mobility:
        """Return the model, its devices at their places at time 0."""
