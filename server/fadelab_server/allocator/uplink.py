"""The uplink of a cell-free network as power control knows it.

With maximum-ratio combining, pilots and MMSE estimates, small-scale fading averaged, every rate is
a function of all devices' power coefficients (H. Q. Ngo et al., "Cell-free massive MIMO versus
small cells", IEEE Trans. Wireless Commun. 16(3), 2017, theorem 2, for any number of antennas)::

    SINR_k = A_k p_k / (Bs_k p_k + sum_{k' != k} Bt_kk' p_k' + I_k),    0 <= p_k <= 1
    R_k    = bandwidth * data_share * log2(1 + SINR_k)
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class UplinkStatistics:
    """What large-scale fading and pilots make of the uplink; arrays over devices.

    The four terms of a device may have any common unit. The noise is counted once, in ``noise``:
    the other terms are not divided by it.
    """

    coherent_gain: F64
    """``A_k``, >= 0; shape ``(devices,)``. 0: no access point hears the device."""
    own_interference: F64
    """``Bs_k``, the uncertainty of the own gain, >= 0; shape ``(devices,)``."""
    cross_interference: F64
    """``Bt_kk'``: what device k (row) suffers from k' (column), >= 0; shape ``(devices, devices)``,
    the diagonal 0."""
    noise: F64
    """``I_k``: noise over the full power, > 0; shape ``(devices,)``."""
    bandwidth_hz: float
    data_share: float
    """Share of the symbols that carry data: 1 - pilot length / coherence length, times the uplink's
    share of them."""
    full_power_w: float
    """What a coefficient of 1 stands for."""

    def __post_init__(self) -> None:
        """Refuse arrays that are no statistics; ValueError says which."""
        devices = len(self.noise)
        shapes = {
            "coherent_gain": (devices,),
            "own_interference": (devices,),
            "cross_interference": (devices, devices),
            "noise": (devices,),
        }
        for name, shape in shapes.items():
            term: F64 = getattr(self, name)
            if term.shape != shape:
                raise ValueError(f"{name} has the shape {term.shape} instead of {shape}")
            if not np.all(np.isfinite(term) & (term >= 0)):
                raise ValueError(f"{name} holds values that are negative or not finite")
        if np.any(self.noise == 0):
            raise ValueError("noise holds zeros: no receiver is without noise")
        if np.any(np.diagonal(self.cross_interference)):
            raise ValueError("cross_interference has a diagonal: own_interference is its place")
        scales = (self.bandwidth_hz, self.data_share, self.full_power_w)
        if not all(0 < scale < np.inf for scale in scales) or self.data_share > 1:
            raise ValueError(
                f"bandwidth_hz, data_share and full_power_w must be positive, data_share at most 1; "
                f"got {scales}"
            )

    @property
    def usable_bandwidth_hz(self) -> float:
        """The bandwidth that is left for data."""
        return self.bandwidth_hz * self.data_share

    def of(self, devices: Index) -> Self:
        """Return the statistics of a part of the devices, the others being silent."""
        return type(self)(
            self.coherent_gain[devices],
            self.own_interference[devices],
            self.cross_interference[np.ix_(devices, devices)],
            self.noise[devices],
            self.bandwidth_hz,
            self.data_share,
            self.full_power_w,
        )

    def disturbance(self, coefficient: F64) -> F64:
        """Return the denominators of all SINRs, shape ``(devices,)``."""
        result: F64 = (
            self.own_interference * coefficient + self.cross_interference @ coefficient + self.noise
        )
        return result

    def sinr(self, coefficient: F64) -> F64:
        """Return every device's SINR for coefficients in [0, 1], shape ``(devices,)``."""
        return self.coherent_gain * coefficient / self.disturbance(coefficient)

    def rate_bps(self, coefficient: F64) -> F64:
        """Return every device's rate for coefficients in [0, 1], shape ``(devices,)``."""
        rate: F64 = self.usable_bandwidth_hz / np.log(2) * np.log1p(self.sinr(coefficient))
        return rate
