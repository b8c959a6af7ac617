"""Log-distance path loss: a straight line over the logarithm of distance."""

from typing import Literal

import numpy as np
from pydantic import Field

from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.propagation.base import MeanLoss, PathLossConfig
from fadelab_emulation.propagation.free_space import free_space_loss_db
from fadelab_emulation.scene import Geometry, Scene


class LogDistanceConfig(PathLossConfig):
    """Loss that grows by ``10 * exponent`` dB per decade of distance.

    The usual cell-free set-up, ``-30.5 - 36.7 log10(d)`` dB of gain (O. T. Demir, E. Bjornson,
    L. Sanguinetti, "Foundations of User-Centric Cell-Free Massive MIMO", 2021), is an exponent of
    3.67 with a reference loss of 30.5 dB at 1 m.
    """

    kind: Literal["log_distance"] = "log_distance"
    exponent: float = Field(
        default=3.0,
        ge=1,
        le=8,
        description="2 in free space, about 2.7 to 3.5 in streets, 4 to 6 when obstructed.",
    )
    reference_distance_m: float = Field(
        default=1.0,
        gt=0,
        description="Distance of the reference loss; nearer devices are taken to be there.",
    )
    reference_loss_db: float | None = Field(
        default=None,
        ge=0,
        description="Loss at the reference distance; left out: free space at the carrier.",
    )

    def build(self, scene: Scene) -> "LogDistance":
        """Return the model, its reference loss from free space where none is given."""
        reference_db = self.reference_loss_db
        if reference_db is None:
            distance_m = np.asarray(self.reference_distance_m)
            reference_db = float(free_space_loss_db(distance_m, scene.carrier_hz))
        return LogDistance(self.exponent, self.reference_distance_m, reference_db)


class LogDistance:
    """``loss = reference + 10 * exponent * log10(distance / reference_distance)``, in dB.

    Source: T. S. Rappaport, "Wireless Communications", 2nd ed., eq. (4.68).
    """

    def __init__(
        self, exponent: float, reference_distance_m: float, reference_loss_db: float
    ) -> None:
        self._exponent = exponent
        self._reference_distance_m = reference_distance_m
        self._reference_loss_db = reference_loss_db

    def advance(self, geometry: Geometry, motion: Motion) -> MeanLoss:
        """Return the loss in dB, that at the reference distance for anything nearer."""
        del motion
        ratio = np.maximum(geometry.distance_m / self._reference_distance_m, 1.0)
        return MeanLoss(self._reference_loss_db + 10 * self._exponent * np.log10(ratio))
