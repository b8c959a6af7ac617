"""Devices at given distances from a base station, for the tests of path loss."""

from collections.abc import Sequence

import numpy as np
from scenes import make_scene

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.propagation.base import MeanLoss, PathLossConfig
from fadelab_emulation.scene import Scene


def line_scene(
    devices: int = 1,
    *,
    carrier_hz: float = 3.5e9,
    site_height_m: float = 10.0,
    device_height_m: float = 1.5,
    seed: int = 1,
) -> Scene:
    """Return a scene with one base station in its corner and room for 4 km."""
    return make_scene(
        devices,
        area_m=(4000.0, 500.0),
        sites_m=[(0.0, 0.0)],
        site_height_m=site_height_m,
        device_height_m=device_height_m,
        carrier_hz=carrier_hz,
        seed=seed,
    )


def motion(devices: int, travelled_m: float = 0.0) -> Motion:
    """Return devices that have gone that far."""
    zeros = np.zeros((devices, 2))
    return Motion(zeros, zeros, np.full(devices, travelled_m))


def on_line(ground_m: Sequence[float] | FloatArray) -> FloatArray:
    """Return places at these distances from the corner, along x."""
    x_m = np.asarray(ground_m, dtype=np.float64)
    return np.column_stack([x_m, np.zeros_like(x_m)])


def evaluate(config: PathLossConfig, scene: Scene, ground_m: Sequence[float]) -> MeanLoss:
    """Return the loss of one device at each distance from the corner's base station."""
    assert scene.devices == len(ground_m)
    model = config.build(scene)
    return model.advance(scene.geometry(on_line(ground_m)), motion(len(ground_m)))


def check_first_devices_keep_theirs(
    config: PathLossConfig, *, carrier_hz: float = 3.5e9, site_height_m: float = 10.0
) -> None:
    """Assert that the first devices of a larger world have the losses of a smaller one."""
    place_m = np.random.default_rng(3).random((300, 2)) * 900
    worlds = []
    for devices in (1, 5, 300):
        scene = make_scene(
            devices,
            area_m=(900.0, 900.0),
            sites_m=[(100.0, 100.0), (450.0, 450.0), (800.0, 100.0)],
            site_height_m=site_height_m,
            carrier_hz=carrier_hz,
        )
        model = config.build(scene)
        for _ in range(20):
            mean = model.advance(scene.geometry(place_m[:devices]), motion(devices, 8.0))
        worlds.append((mean.loss_db, mean.shadowing_std_db))
    for loss_db, std_db in worlds[:2]:
        assert np.array_equal(loss_db, worlds[2][0][: len(loss_db)])
        if std_db is not None:
            assert np.array_equal(std_db, worlds[2][1][: len(std_db)])
