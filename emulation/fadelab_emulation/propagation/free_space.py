"""Free space: the loss between two antennas with nothing else in the world."""

import math
from typing import Literal

import numpy as np

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.propagation.base import SPEED_OF_LIGHT_MPS, MeanLoss, PathLossConfig
from fadelab_emulation.scene import Geometry, Scene


def free_space_loss_db(distance_m: FloatArray, carrier_hz: float) -> FloatArray:
    """Return the loss between isotropic antennas in free space, dB, of any shape.

    ``20 log10(4 pi d f / c)``, H. T. Friis, "A note on a simple transmission formula", Proc. IRE
    34(5), 1946. Never below 0: within a twelfth of a wavelength the formula would amplify.
    """
    ratio = 4 * math.pi * carrier_hz / SPEED_OF_LIGHT_MPS * distance_m
    loss_db: FloatArray = 20 * np.log10(np.maximum(ratio, 1.0))
    return loss_db


class FreeSpaceConfig(PathLossConfig):
    """Loss in free space at the carrier frequency."""

    kind: Literal["free_space"] = "free_space"

    def build(self, scene: Scene) -> "FreeSpace":
        """Return the model."""
        return FreeSpace(scene.carrier_hz)


class FreeSpace:
    """:func:`free_space_loss_db` over the distance of the antennas."""

    def __init__(self, carrier_hz: float) -> None:
        self._carrier_hz = carrier_hz

    def advance(self, geometry: Geometry, motion: Motion) -> MeanLoss:
        """Return the loss of every link."""
        del motion
        return MeanLoss(free_space_loss_db(geometry.distance_m, self._carrier_hz))
