"""The contracts of path loss and fading, and how their random numbers are told apart."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.scene import Geometry, Scene
from fadelab_proto.config import StrictModel

SPEED_OF_LIGHT_MPS = 299_792_458.0


class ChannelDraw(IntEnum):
    """First key of the channel's random stream. Values are part of the seed: never reuse."""

    SHADOWING = 1
    FADING = 2
    LINE_OF_SIGHT = 3
    BLOCKAGE = 4
    SMALL_SCALE = 5
    SITES = 6
    PREDICTION = 7
    CONTACT = 8
    TRACE = 9
    SECOND_FADING = 10


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """Loss of power that does not change within a wavelength, without shadowing."""

    loss_db: FloatArray
    """Shape ``(devices, sites)``."""
    shadowing_std_db: FloatArray | None = None
    """Standard deviation that the model's standard gives for each link, shape
    ``(devices, sites)``; None where it gives none."""


class PathLoss(Protocol):
    """Mean loss of power over distance, line of sight or its absence included."""

    def advance(self, geometry: Geometry, motion: Motion) -> MeanLoss:
        """Return the loss at the next instant; called once per tick, in order."""
        ...


class PathLossConfig(StrictModel, ABC):
    """The base of every path-loss model's settings."""

    @abstractmethod
    def build(self, scene: Scene) -> PathLoss:
        """Return the model at the scene's carrier frequency; ValueError where it does not hold."""


@dataclass(frozen=True, slots=True)
class FadingBlocks:
    """Small-scale fading of the serving link during one tick, as blocks in which it is constant."""

    power: FloatArray
    """Power gain relative to the local mean (so its mean is 1), shape ``(blocks, devices)``."""
    share: FloatArray
    """Part of the tick that each block fills, shape ``(blocks,)``, adding up to 1."""


@dataclass(frozen=True, slots=True)
class FadingLaw:
    """The distribution of the power gain as a sum of points, for expectations over it."""

    power: FloatArray
    """Shape ``(points,)``; the weighted mean is 1."""
    weight: FloatArray
    """Shape ``(points,)``, adding up to 1."""


class Fading(Protocol):
    """Small-scale fading over time."""

    @property
    def law(self) -> FadingLaw:
        """The stationary distribution of the power gain."""
        ...

    def during(self, start_s: float, duration_s: float, speed_mps: FloatArray) -> FadingBlocks:
        """Return the blocks of ``[start_s, start_s + duration_s)``; called once per tick, in order.

        ``speed_mps``, shape ``(devices,)``, holds for the span and gives the Doppler spread.
        """
        ...


class FadingConfig(StrictModel, ABC):
    """The base of every fading model's settings."""

    def check_tick(self, tick_s: float) -> None:
        """Raise ValueError if the model cannot be evaluated on this tick."""

    @abstractmethod
    def build(self, scene: Scene) -> Fading:
        """Return the model for the scene's devices."""
