"""The cell of SP-FL's predicted table: a street canyon without sight, and gradients for its devices."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fadelab_server.allocator.sp_fl_link import PacketLinks

F32 = NDArray[np.float32]
DEVICES = 20
BANDWIDTH_HZ = 10e6
ENTRIES = 1e5
MODULUS_BITS = 3


def gradients(count: int, seed: int = 0, dimension: int = 2000) -> dict[int, F32]:
    """Return gradients with a component in common, as those of one model are."""
    draw = np.random.default_rng(seed)
    common = draw.laplace(size=dimension)
    return {
        k: (common + 0.7 * draw.laplace(size=dimension)).astype(np.float32) for k in range(count)
    }


def noise_per_hz() -> NDArray[np.float64]:
    """Return noise over received power of 20 devices, 50 to 500 m away, at 23 dBm."""
    distance_m = np.linspace(50, 500, DEVICES)
    # Path loss of 3GPP TR 38.901, table 7.4.1-1, UMi without sight, at 2.4 GHz.
    loss_db = 22.4 + 35.3 * np.log10(distance_m) + 21.3 * np.log10(2.4)
    noise: NDArray[np.float64] = 10 ** ((-174 - 23 + loss_db) / 10)
    return noise


def cell(deadline_s: float, **more: Any) -> PacketLinks:
    """Return links on 10 MHz for 1e5 entries of 1 and 3 bits, one fade for both packets."""
    settings = {"access": "fdm", "fading": "common"} | more
    return PacketLinks(
        noise_per_hz(),
        BANDWIDTH_HZ,
        deadline_s,
        ENTRIES,
        MODULUS_BITS * ENTRIES + 64,
        **settings,
    )
