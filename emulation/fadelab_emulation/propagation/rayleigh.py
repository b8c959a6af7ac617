"""Rayleigh block fading: a new exponential power gain every coherence time."""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import ChannelDraw, FadingBlocks, FadingConfig, FadingLaw
from fadelab_emulation.scene import Scene
from fadelab_proto.seeds import Stream, generator

_MOST_BLOCKS_PER_TICK = 1000
_LAW_POINTS = 32
_NEGLIGIBLE_BLOCK = 1e-9
"""Shorter spans, relative to a block, come from rounding and not from the model."""


class RayleighConfig(FadingConfig):
    """Many scattered paths and no line of sight."""

    kind: Literal["rayleigh"] = "rayleigh"
    coherence_s: float = Field(
        gt=0,
        description="Time for which the channel keeps its value; about 0.42 wavelengths of "
        "travel divided by the speed (Clarke's model).",
    )

    def check_tick(self, tick_s: float) -> None:
        """Raise ValueError if a tick would hold more blocks than are worth drawing."""
        least_s = tick_s / _MOST_BLOCKS_PER_TICK
        if self.coherence_s < least_s:
            raise ValueError(
                f"a coherence time of {self.coherence_s:g} s is too short for a tick of "
                f"{tick_s:g} s: the least is a thousandth of the tick, {least_s:g} s"
            )

    def build(self, scene: Scene) -> "RayleighFading":
        """Return the model for the scene's devices."""
        return RayleighFading(self.coherence_s, scene)


class RayleighFading:
    """Power gains drawn from the exponential distribution of mean 1, one per block and device.

    Block ``b`` fills ``[b, b + 1) * coherence_s`` and draws from a generator of its own, so any
    span can be asked for in any order. Up- and downlink share one carrier (time division), hence
    one gain.
    """

    def __init__(self, coherence_s: float, scene: Scene) -> None:
        self._coherence_s = coherence_s
        self._scene = scene

    @property
    def law(self) -> FadingLaw:
        """The exponential law by Gauss-Laguerre quadrature."""
        points, weights = np.polynomial.laguerre.laggauss(_LAW_POINTS)
        return FadingLaw(power=points, weight=weights)

    def during(self, start_s: float, duration_s: float, speed_mps: FloatArray) -> FadingBlocks:
        """Return every block that overlaps the span, weighted by its overlap."""
        del speed_mps
        start = start_s / self._coherence_s
        end = (start_s + duration_s) / self._coherence_s
        first = math.floor(start + _NEGLIGIBLE_BLOCK)
        last = max(first + 1, math.ceil(end - _NEGLIGIBLE_BLOCK))
        edges = np.clip(np.arange(first, last + 1, dtype=np.float64), start, end)
        share = np.diff(edges)
        power = np.stack([self._block(number) for number in range(first, last)])
        return FadingBlocks(power=power, share=share / share.sum())

    def _block(self, number: int) -> np.ndarray:
        draw = generator(self._scene.seed, Stream.CHANNEL, ChannelDraw.FADING, number)
        return draw.standard_exponential(self._scene.devices)
