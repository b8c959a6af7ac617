"""How long a device that keeps its course stays in coverage: what it can compute for itself."""

import numpy as np

from fadelab_emulation.contact.base import CONTACT_HORIZON_S
from fadelab_emulation.link_state import FloatArray


def remaining_contact_s(
    offset_m: FloatArray, velocity_mps: FloatArray, radius_m: FloatArray | float
) -> FloatArray:
    """Return the time until a device that keeps its course has left the last disc it goes through.

    Of one disc of radius R, ``(-x.e + sqrt(R^2 - |x|^2 + (x.e)^2)) / v`` for position x relative
    to the centre, unit heading e and speed v. Discs that overlap on the way are one contact.

    Args:
        offset_m: positions relative to the discs' centres, shape ``(devices, sites, 2)``.
        velocity_mps: shape ``(devices, 2)``.
        radius_m: the discs' radii, shape ``(devices, sites)``, or one for all.

    Returns:
        Seconds, shape ``(devices,)``, 0 outside all discs and at most
        :data:`CONTACT_HORIZON_S`, which also stands for a device in coverage that does not move.

    """
    x_m, y_m = offset_m[..., 0], offset_m[..., 1]
    speed_mps = np.hypot(velocity_mps[:, 0], velocity_mps[:, 1])
    moves = speed_mps > 0
    divisor_mps = np.where(moves, speed_mps, 1.0)[:, None]
    heading = velocity_mps / divisor_mps
    along_m = x_m * heading[:, :1] + y_m * heading[:, 1:]
    inside_m2 = np.square(radius_m) - (x_m**2 + y_m**2)
    half_chord_m2 = inside_m2 + along_m**2
    half_chord_m = np.sqrt(np.maximum(half_chord_m2, 0.0))
    enters_s = np.where(half_chord_m2 >= 0, (-along_m - half_chord_m) / divisor_mps, np.inf)
    leaves_s = (half_chord_m - along_m) / divisor_mps
    remaining_s = np.minimum(_end_of_union(enters_s, leaves_s), CONTACT_HORIZON_S)
    standing_s = np.where(np.any(inside_m2 >= 0, axis=1), CONTACT_HORIZON_S, 0.0)
    return np.where(moves, remaining_s, standing_s)


def _end_of_union(start_s: FloatArray, end_s: FloatArray) -> FloatArray:
    """Return where the unbroken stretch of intervals that holds time 0 ends, 0 if none does.

    Intervals of one device stand in one row, shape ``(devices, sites)``.
    """
    reached_s = np.zeros(len(start_s))
    growing = np.arange(len(start_s))
    while growing.size:
        joined = start_s[growing] <= reached_s[growing, None]
        further_s = np.where(joined, end_s[growing], 0.0).max(axis=1)
        grew = further_s > reached_s[growing]
        growing = growing[grew]
        reached_s[growing] = further_s[grew]
    return reached_s
