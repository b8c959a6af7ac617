"""No small-scale fading: a constant channel."""

from typing import Literal

import numpy as np

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import FadingBlocks, FadingConfig, FadingLaw
from fadelab_emulation.scene import Scene


class NoFadingConfig(FadingConfig):
    """No small-scale fading."""

    kind: Literal["none"] = "none"

    def build(self, scene: Scene) -> "NoFading":
        """Return the constant channel."""
        return NoFading(scene.devices)


class NoFading:
    """A power gain of 1 at all times."""

    def __init__(self, devices: int) -> None:
        self._blocks = FadingBlocks(power=np.ones((1, devices)), share=np.ones(1))

    @property
    def law(self) -> FadingLaw:
        """The gain 1 with certainty."""
        return FadingLaw(power=np.ones(1), weight=np.ones(1))

    def during(self, start_s: float, duration_s: float, speed_mps: FloatArray) -> FadingBlocks:
        """Return one block of gain 1."""
        del start_s, duration_s, speed_mps
        return self._blocks
