"""COST-Hata with three slopes: the path loss of the first cell-free massive MIMO papers.

H. Q. Ngo, A. Ashikhmin, H. Yang, E. G. Larsson, T. L. Marzetta, "Cell-Free Massive MIMO Versus
Small Cells", IEEE Trans. Wireless Commun. 16(3), 2017, eqs. (52) and (53); the constant is that of
the COST 231 extension of Hata's formula for small and medium cities.
"""

import math
from typing import Literal

import numpy as np

from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.propagation.base import MeanLoss, PathLossConfig
from fadelab_emulation.scene import Geometry, Scene

FAR_M = 50.0
"""Beyond it, loss grows by 35 dB per decade and obstacles cast shadows; within it, by 20 dB."""
NEAR_M = 10.0
"""Within it, loss is constant."""
SHADOWING_STD_DB = 8.0


class ThreeSlopeConfig(PathLossConfig):
    """COST-Hata loss with slopes of 0, 20 and 35 dB per decade (Ngo et al. 2017)."""

    kind: Literal["cost_hata_three_slope"] = "cost_hata_three_slope"

    def build(self, scene: Scene) -> "ThreeSlope":
        """Return the model; ValueError for a carrier or height that COST-Hata does not cover."""
        if not 1.5e9 <= scene.carrier_hz <= 2e9:
            raise ValueError(
                "the COST-Hata model holds from 1.5 to 2 GHz, but carrier_hz is "
                f"{scene.carrier_hz / 1e9:g} GHz"
            )
        if not 1 <= scene.device_height_m <= 10:
            raise ValueError(
                "the COST-Hata model is for devices at 1 to 10 m, but device_height_m is "
                f"{scene.device_height_m:g}"
            )
        if scene.site_height_m < 1:
            raise ValueError(
                "the COST-Hata model needs a site_height_m of at least 1 m, not "
                f"{scene.site_height_m:g}"
            )
        return ThreeSlope(scene)


class ThreeSlope:
    """Loss over the ground distance, with shadowing of 8 dB beyond 50 m and none within."""

    def __init__(self, scene: Scene) -> None:
        log_mhz = math.log10(scene.carrier_hz / 1e6)
        self._at_one_km_db = (
            46.3
            + 33.9 * log_mhz
            - 13.82 * math.log10(scene.site_height_m)
            - (1.1 * log_mhz - 0.7) * scene.device_height_m
            + (1.56 * log_mhz - 0.8)
        )

    def advance(self, geometry: Geometry, motion: Motion) -> MeanLoss:
        """Return loss and shadowing's deviation, shape ``(devices, sites)``."""
        del motion
        ground_m = geometry.horizontal_m
        slopes_db = 15 * np.log10(np.maximum(ground_m, FAR_M) / 1e3) + 20 * np.log10(
            np.maximum(ground_m, NEAR_M) / 1e3
        )
        return MeanLoss(
            self._at_one_km_db + slopes_db, np.where(ground_m > FAR_M, SHADOWING_STD_DB, 0.0)
        )
