"""Log-normal shadowing that changes along a device's path, not with time.

M. Gudmundson, "Correlation model for shadow fading in mobile radio systems", Electronics Letters
27(23), 1991: exponential correlation over distance, here ``2 ** (-travelled / decorrelation)``,
that is ``exp(-ln 2 * travelled / decorrelation)``. Texts that write ``exp(-d / d0)`` without the
ln 2 (3GPP TR 38.901, 7.4.4) have ``d0 = decorrelation / ln 2``.
"""

import math

import numpy as np
from pydantic import Field

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_emulation.propagation.correlated import CorrelatedNormal
from fadelab_emulation.scene import Scene
from fadelab_proto.config import StrictModel


class ShadowingConfig(StrictModel):
    """Loss by what stands between the antennas, a normal variable in dB."""

    std_db: float | None = Field(
        default=None,
        ge=0,
        le=20,
        description="Standard deviation; 0 switches shadowing off; left out: what the path-loss "
        "model's standard says, 0 where it says nothing.",
    )
    decorrelation_m: float = Field(
        default=10.0,
        gt=0,
        description="Length of path after which the correlation has fallen to one half.",
    )

    def build(self, scene: Scene) -> "Shadowing":
        """Return the model for the scene's devices."""
        return Shadowing(self, scene)


class Shadowing:
    """A correlated normal variable per link times a standard deviation, the same both ways."""

    def __init__(self, config: ShadowingConfig, scene: Scene) -> None:
        self._std_db = config.std_db
        self._normal = CorrelatedNormal(
            scene, config.decorrelation_m / math.log(2), ChannelDraw.SHADOWING
        )

    def advance(self, travelled_m: FloatArray, own_std_db: FloatArray | None) -> FloatArray:
        """Return the shadowing loss in dB, shape ``(devices, sites)``.

        Args:
            travelled_m: how far each device went since the last call, shape ``(devices,)``.
            own_std_db: the path-loss model's own standard deviation of each link, used where the
                settings give none.

        """
        normal = self._normal.advance(travelled_m)
        if self._std_db is not None:
            return self._std_db * normal
        return np.zeros_like(normal) if own_std_db is None else own_std_db * normal
