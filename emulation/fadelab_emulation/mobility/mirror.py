"""Reflection at the borders of a rectangle, by moving straight on through its mirror images.

The plane is tiled with the area and its images; a straight line through the tiles, folded back,
is the path of a device that bounces off the borders. Motion that knows nothing of place then keeps
uniform places uniform, whatever its velocity does (P. Nain, D. Towsley, B. Liu and Z. Liu,
"Properties of random direction models", IEEE INFOCOM 2005).
"""

import numpy as np

from fadelab_emulation.link_state import FloatArray


def fold(
    unfolded_m: FloatArray, velocity_mps: FloatArray, area_m: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return where devices are inside the area, and their velocities there.

    Args:
        unfolded_m: places in the tiled plane, shape ``(devices, 2)``.
        velocity_mps: velocities in that plane, shape ``(devices, 2)``.
        area_m: width and height, shape ``(2,)``.

    Returns:
        Positions in ``[0, width] x [0, height]`` and velocities, both of shape ``(devices, 2)``.

    """
    within_two_m = np.mod(unfolded_m, 2 * area_m)
    mirrored = within_two_m > area_m
    position_m: FloatArray = np.where(mirrored, 2 * area_m - within_two_m, within_two_m)
    return position_m, np.where(mirrored, -velocity_mps, velocity_mps)
