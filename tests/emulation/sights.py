"""What contact models are shown in tests: devices that drive straight on."""

import numpy as np

from fadelab_emulation.contact.base import Contact, ContactState, Sight
from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_emulation.mobility.base import Motion
from fadelab_emulation.scene import Scene


def sight(
    scene: Scene,
    position_m: FloatArray,
    velocity_mps: FloatArray | None = None,
    *,
    t_s: float = 0.0,
    snr_db: FloatArray | None = None,
    present: BoolArray | None = None,
) -> Sight:
    """Return devices at ``position_m``; standing, and without SNR, unless told otherwise."""
    velocity_mps = np.zeros_like(position_m) if velocity_mps is None else velocity_mps
    motion = Motion(position_m, velocity_mps, np.zeros(len(position_m)), present)
    geometry = scene.geometry(position_m)
    if snr_db is None:
        snr_db = np.full_like(geometry.horizontal_m, np.nan)
    return Sight(t_s, motion, geometry, snr_db)


def power_law_snr_db(
    scene: Scene, position_m: FloatArray, at_1_m_db: float, exponent: float
) -> FloatArray:
    """Return an SNR that falls with distance alone, shape ``(devices, sites)``."""
    falls_db: FloatArray = 10 * exponent * np.log10(scene.geometry(position_m).distance_m)
    return at_1_m_db - falls_db


def drive(
    scene: Scene,
    model: Contact,
    start_m: FloatArray,
    velocity_mps: FloatArray,
    *,
    tick_s: float,
    ticks: int,
    snr: tuple[float, float] | None = None,
) -> list[ContactState]:
    """Drive every device straight on; ``snr`` is the power law's value at 1 m and exponent."""
    states = []
    for tick in range(ticks):
        t_s = tick * tick_s
        position_m = start_m + velocity_mps * t_s
        snr_db = None if snr is None else power_law_snr_db(scene, position_m, *snr)
        states.append(model.update(sight(scene, position_m, velocity_mps, t_s=t_s, snr_db=snr_db)))
    return states


def opened(states: list[ContactState]) -> BoolArray:
    """Return whether each link was open, shape ``(ticks, devices)``."""
    return np.array([state.is_open for state in states])


def predicted(states: list[ContactState]) -> FloatArray:
    """Return the predictions, shape ``(ticks, devices)``."""
    return np.array([state.predicted_s for state in states])


def sites(states: list[ContactState]) -> np.ndarray:
    """Return the serving sites, shape ``(ticks, devices)``."""
    return np.array([state.site for state in states])


def true_remaining_s(is_open: BoolArray, tick_s: float, horizon: int) -> FloatArray:
    """Return the time from each tick to the next closed one, at most ``horizon`` ticks, by hand.

    ``is_open`` has shape ``(ticks, devices)``; the last ``horizon`` ticks are left out.
    """
    ticks, devices = is_open.shape
    remaining = np.zeros((ticks - horizon, devices))
    for tick in range(ticks - horizon):
        for device in range(devices):
            while (
                remaining[tick, device] < horizon
                and is_open[tick + int(remaining[tick, device]), device]
            ):
                remaining[tick, device] += 1
    return remaining * tick_s
