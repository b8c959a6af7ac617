"""The uplink with maximum-ratio combining, in closed form.

Every access point multiplies what it receives by the conjugate of its channel estimate, the sums
of all access points are added up, and the detector knows mean gains only ("use and then forget").
Small-scale fading is averaged in that bound: H. Q. Ngo et al., "Cell-free massive MIMO versus small
cells", IEEE Trans. Wireless Commun. 16(3), 2017, theorem 2, eq. (27), here for N antennas per
access point::

    A_k    = (N sum_l gamma_kl)^2                            coherent gain
    Bs_k   = N sum_l gamma_kl beta_kl                        uncertainty of the own gain
    Bt_kk' = N sum_l gamma_kl beta_k'l                       interference, plus, for k' != k with
             + (N sum_l gamma_kl beta_k'l / beta_kl)^2       the same pilot, contamination
    I_k    = N sum_l gamma_kl / rho                          noise
    SINR_k = A_k p_k / (Bs_k p_k + sum_k' Bt_kk' p_k' + I_k)
"""

from dataclasses import dataclass

import numpy as np

from fadelab_emulation.link_state import FloatArray, IntArray
from fadelab_emulation.rate.cell_free.estimation import ChannelEstimate


@dataclass(frozen=True, slots=True)
class UplinkStatistics:
    """The terms of the SINR one by one, for power control; arrays over devices."""

    coherent_gain: FloatArray
    """``A_k``, shape ``(devices,)``."""
    own_interference: FloatArray
    """``Bs_k``, shape ``(devices,)``."""
    cross_interference: FloatArray
    """``Bt_kk'``: what device k (row) suffers from k' (column); shape ``(devices, devices)``, the
    diagonal 0."""
    noise: FloatArray
    """``I_k``, shape ``(devices,)``."""

    def sinr(self, coefficient: FloatArray) -> FloatArray:
        """Return every device's SINR for power coefficients in [0, 1], shape ``(devices,)``."""
        disturbance = (
            self.own_interference * coefficient + self.cross_interference @ coefficient + self.noise
        )
        sinr: FloatArray = self.coherent_gain * coefficient / disturbance
        return sinr


def uplink_statistics(estimate: ChannelEstimate, full_power_snr: float) -> UplinkStatistics:
    """Return the SINR's terms.

    Args:
        estimate: what access points know.
        full_power_snr: the power of coefficient 1 over the receiver's noise, "rho".

    """
    antennas = estimate.antennas
    amplitude = antennas * estimate.quality.sum(axis=1)
    interference = antennas * estimate.quality @ estimate.gain.T
    own = np.diagonal(interference).copy()
    np.fill_diagonal(interference, 0.0)
    for shared in estimate.pilots.members:
        interference[np.ix_(shared, shared)] += _contamination(estimate, shared)
    return UplinkStatistics(amplitude**2, own, interference, amplitude / full_power_snr)


def maximum_ratio_sinr(estimate: ChannelEstimate, power_snr: FloatArray) -> FloatArray:
    """Return every device's SINR without a matrix over all pairs of devices.

    The same as :meth:`UplinkStatistics.sinr` at a cost of ``devices * sites`` plus, for each
    pilot, the square of the devices that share it.

    Args:
        estimate: what access points know.
        power_snr: each device's power over the receiver's noise, ``p_k * rho``.

    """
    amplitude = estimate.antennas * estimate.quality.sum(axis=1)
    received = (power_snr[:, None] * estimate.gain).sum(axis=0)
    disturbance = estimate.antennas * (estimate.quality * received).sum(axis=1) + amplitude
    for shared in estimate.pilots.members:
        disturbance[shared] += _contamination(estimate, shared) @ power_snr[shared]
    sinr: FloatArray = amplitude**2 * power_snr / disturbance
    return sinr


def _contamination(estimate: ChannelEstimate, shared: IntArray) -> FloatArray:
    """Return the squared sums of ``Bt_kk'`` among the devices of one pilot, the diagonal 0."""
    coherent: FloatArray = estimate.antennas * estimate.share[shared] @ estimate.gain[shared].T
    np.fill_diagonal(coherent, 0.0)
    return np.square(coherent)
