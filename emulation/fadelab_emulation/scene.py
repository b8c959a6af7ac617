"""What every radio model is built for: the place, the devices, the seed."""

from dataclasses import dataclass

import numpy as np

from fadelab_emulation.link_state import FloatArray


@dataclass(frozen=True, slots=True)
class Scene:
    """The facts that all models of one radio world share."""

    area_m: tuple[float, float]
    """Width and height; positions lie in ``[0, width] x [0, height]``."""
    base_station_m: tuple[float, float]
    carrier_hz: float
    devices: int
    seed: int

    def offset_m(self, position_m: FloatArray) -> FloatArray:
        """Return positions relative to the base station; both shapes ``(devices, 2)``, metres."""
        offset_m: FloatArray = position_m - np.asarray(self.base_station_m, dtype=np.float64)
        return offset_m
