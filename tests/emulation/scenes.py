"""Scenes for the tests of the radio models."""

from collections.abc import Sequence

import numpy as np

from fadelab_emulation.scene import Scene


def make_scene(
    devices: int = 1,
    *,
    area_m: tuple[float, float] = (400.0, 300.0),
    sites_m: Sequence[tuple[float, float]] = ((200.0, 150.0),),
    site_height_m: float = 10.0,
    device_height_m: float = 1.5,
    carrier_hz: float = 5.9e9,
    seed: int = 1,
    wrap_around: bool = False,
) -> Scene:
    """Return a scene with one base station in the middle of its area, unless told otherwise."""
    return Scene(
        area_m=area_m,
        sites_m=np.asarray(sites_m, dtype=np.float64).reshape(-1, 2),
        site_height_m=site_height_m,
        device_height_m=device_height_m,
        carrier_hz=carrier_hz,
        devices=devices,
        seed=seed,
        wrap_around=wrap_around,
    )
