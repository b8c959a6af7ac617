"""The downlink with conjugate beamforming, in closed form.

Every access point sends each device's symbol through the conjugate of its channel estimate; devices
know mean gains only, so small-scale fading is averaged. H. Q. Ngo et al., "Cell-free massive MIMO
versus small cells", IEEE Trans. Wireless Commun. 16(3), 2017, theorem 1, eq. (24), here for N
antennas per access point::

    SINR_k = rho (N sum_l sqrt(eta_lk) gamma_lk)^2 / (
        rho sum_{k' != k, same pilot} (N sum_l sqrt(eta_lk') gamma_lk' beta_lk / beta_lk')^2
        + rho N sum_l beta_lk sum_k' eta_lk' gamma_lk' + 1)

with the power of each access point bounded by ``N sum_k eta_lk gamma_lk <= 1``.
"""

import numpy as np

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.rate.cell_free.estimation import ChannelEstimate


def full_power(estimate: ChannelEstimate) -> FloatArray:
    """Return the coefficients ``eta`` of access points that spend all their power.

    Each gives all devices the same coefficient, as in the paper's case without power control, so
    that a device it hears better gets more of its power. Shape ``(devices, sites)``.
    """
    each = 1 / (estimate.antennas * estimate.quality.sum(axis=0))
    return np.broadcast_to(each, estimate.gain.shape)


def conjugate_beamforming_sinr(
    estimate: ChannelEstimate, power_snr: float, coefficient: FloatArray
) -> FloatArray:
    """Return every device's SINR, shape ``(devices,)``.

    Args:
        estimate: what access points know; the channel is the same in both directions.
        power_snr: the full power of one access point over the receiver's noise, "rho".
        coefficient: the power control coefficients ``eta``, shape ``(devices, sites)``.

    """
    antennas = estimate.antennas
    amplitude = np.sqrt(coefficient)
    desired = antennas * (amplitude * estimate.quality).sum(axis=1)
    sent = antennas * (coefficient * estimate.quality).sum(axis=0)
    disturbance = power_snr * (estimate.gain * sent).sum(axis=1) + 1
    for shared in estimate.pilots.members:
        steered = amplitude[shared] * estimate.share[shared]
        coherent = antennas * estimate.gain[shared] @ steered.T
        np.fill_diagonal(coherent, 0.0)
        disturbance[shared] += power_snr * np.square(coherent).sum(axis=1)
    sinr: FloatArray = power_snr * desired**2 / disturbance
    return sinr
