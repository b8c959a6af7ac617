"""The contracts of path loss and fading, and how their random numbers are told apart."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.scene import Scene
from fadelab_proto.config import StrictModel

SPEED_OF_LIGHT_MPS = 299_792_458.0


class ChannelDraw(IntEnum):
    """First key of the channel's random stream. Values are part of the seed: never reuse."""

    SHADOWING = 1
    FADING = 2


class PathLoss(Protocol):
    """Mean loss of power over distance."""

    def loss_db(self, distance_m: FloatArray) -> FloatArray:
        """Return the loss in dB, >= 0, of the same shape as ``distance_m``."""
        ...


class PathLossConfig(StrictModel, ABC):
    """The base of every path-loss model's settings."""

    @abstractmethod
    def build(self, scene: Scene) -> PathLoss:
        """Return the model at the scene's carrier frequency."""


@dataclass(frozen=True, slots=True)
class FadingBlocks:
    """Small-scale fading during one tick, as blocks in which it is constant."""

    power: FloatArray
    """Power gain relative to the local mean (so its mean is 1), shape ``(blocks, devices)``."""
    share: FloatArray
    """Part of the tick that each block fills, shape ``(blocks,)``, adding up to 1."""


class Fading(Protocol):
    """Small-scale fading over time."""

    def during(self, start_s: float, duration_s: float) -> FadingBlocks:
        """Return the blocks of ``[start_s, start_s + duration_s)``; the same for the same span."""
        ...


class FadingConfig(StrictModel, ABC):
    """The base of every fading model's settings."""

    def check_tick(self, tick_s: float) -> None:
        """Raise ValueError if the model cannot be evaluated on this tick."""

    @abstractmethod
    def build(self, scene: Scene) -> Fading:
        """Return the model for the scene's devices."""
