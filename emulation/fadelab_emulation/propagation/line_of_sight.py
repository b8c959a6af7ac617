"""Whether a link has line of sight: drawn by a probability, steady in space."""

from typing import Literal

import numpy as np

from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_emulation.propagation.correlated import CorrelatedNormal
from fadelab_emulation.scene import Scene

LineOfSightChoice = Literal["random", "always", "never"]

LINE_OF_SIGHT_CORRELATION_M = 50.0
"""Correlation distance of the line-of-sight state in streets, UMi and UMa alike (3GPP TR 38.901,
table 7.6.3.1-2)."""


class LineOfSight:
    """The state of every link: in sight where a correlated uniform variable is below a probability.

    As a device moves, both the variable and the probability change gradually, so that it loses and
    regains sight of a site every few tens of metres, and not with every tick. Source: 3GPP TR
    38.901, 7.6.3.3, with its Gaussian variable ``G`` and without the soft transition.
    """

    def __init__(self, choice: LineOfSightChoice, scene: Scene) -> None:
        # scipy takes a while to import, which runs with other models need not wait for.
        from scipy import special  # noqa: PLC0415

        self._normal_cdf = special.ndtr
        self._choice = choice
        self._normal = CorrelatedNormal(
            scene, LINE_OF_SIGHT_CORRELATION_M, ChannelDraw.LINE_OF_SIGHT
        )

    def advance(self, probability: FloatArray, travelled_m: FloatArray) -> BoolArray:
        """Return which links are in sight at the next instant, shape ``(devices, sites)``.

        Args:
            probability: of being in sight at the present distance, shape ``(devices, sites)``.
            travelled_m: how far each device went since the last call, shape ``(devices,)``.

        """
        if self._choice != "random":
            return np.full(probability.shape, self._choice == "always")
        in_sight: BoolArray = self._normal_cdf(self._normal.advance(travelled_m)) < probability
        return in_sight
