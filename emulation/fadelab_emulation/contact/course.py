"""How long a device that keeps its course stays in coverage: what it can compute for itself."""

import numpy as np
from numpy.typing import NDArray

from fadelab_emulation.contact.base import CONTACT_HORIZON_S
from fadelab_emulation.link_state import FloatArray

Index = NDArray[np.intp]


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
    divisor_mps = np.where(moves, speed_mps, 1.0)
    heading = velocity_mps / divisor_mps[:, None]
    along_m = x_m * heading[:, :1] + y_m * heading[:, 1:]
    inside_m2 = np.square(radius_m) - (x_m**2 + y_m**2)
    half_chord_m2 = inside_m2 + along_m**2
    is_inside = inside_m2 >= 0
    # Of many discs few lie on the way, so the roots are drawn for these alone.
    device, site = np.nonzero(is_inside | ((half_chord_m2 >= 0) & (along_m < 0)))
    half_chord_m = np.sqrt(half_chord_m2[device, site])
    before_m = -along_m[device, site]
    enters_s = (before_m - half_chord_m) / divisor_mps[device]
    leaves_s = (before_m + half_chord_m) / divisor_mps[device]
    end_s = _end_of_union(len(speed_mps), device, enters_s, leaves_s)
    standing_s = np.where(np.any(is_inside, axis=1), CONTACT_HORIZON_S, 0.0)
    return np.where(moves, np.minimum(end_s, CONTACT_HORIZON_S), standing_s)


def _end_of_union(
    devices: int, device: Index, start_s: FloatArray, end_s: FloatArray
) -> FloatArray:
    """Return where the unbroken stretch of intervals that holds time 0 ends, 0 if none does.

    Intervals are given one by one, with the device that each belongs to; the result has the shape
    ``(devices,)``.
    """
    reached_s = np.zeros(devices)
    while device.size:
        joins = start_s <= reached_s[device]
        if not joins.any():
            break
        np.maximum.at(reached_s, device[joins], end_s[joins])
        device, start_s, end_s = device[~joins], start_s[~joins], end_s[~joins]
    return reached_s
