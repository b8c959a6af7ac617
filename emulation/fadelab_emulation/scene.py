"""What every radio model is built for: the place, its base stations, the devices, the seed."""

from dataclasses import dataclass

import numpy as np

from fadelab_emulation.link_state import FloatArray


@dataclass(frozen=True, slots=True)
class Scene:
    """The facts that all models of one radio world share."""

    area_m: tuple[float, float]
    """Width and height; positions lie in ``[0, width] x [0, height]``."""
    sites_m: FloatArray
    """Base stations or access points, shape ``(sites, 2)``."""
    site_height_m: float
    device_height_m: float
    carrier_hz: float
    devices: int
    seed: int
    wrap_around: bool = False
    """Whether distances go over the area's edges, as if it were repeated on all sides."""

    @property
    def sites(self) -> int:
        """Number of base stations or access points."""
        return len(self.sites_m)

    def geometry(self, position_m: FloatArray) -> "Geometry":
        """Return how devices at ``position_m``, shape ``(devices, 2)``, see every site."""
        offset_m = position_m[:, None, :] - self.sites_m[None, :, :]
        if self.wrap_around:
            area_m = np.asarray(self.area_m)
            offset_m -= area_m * np.rint(offset_m / area_m)
        # Not np.hypot, which guards against an overflow that metres do not come near, at eight
        # times the cost: with many sites this is among the most expensive lines of a world.
        horizontal_m2 = offset_m[..., 0] ** 2 + offset_m[..., 1] ** 2
        rise_m = self.site_height_m - self.device_height_m
        return Geometry(offset_m, np.sqrt(horizontal_m2), np.sqrt(horizontal_m2 + rise_m**2))


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where every device is as seen from every site."""

    offset_m: FloatArray
    """Device's place relative to the site, shape ``(devices, sites, 2)``."""
    horizontal_m: FloatArray
    """Distance on the ground, "2D" in 3GPP's terms, shape ``(devices, sites)``."""
    distance_m: FloatArray
    """Distance of the antennas, heights included ("3D"), shape ``(devices, sites)``."""
