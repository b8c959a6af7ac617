"""What access points learn of the channels from pilots."""

from dataclasses import dataclass

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.rate.cell_free.pilots import Pilots


@dataclass(frozen=True, slots=True)
class ChannelEstimate:
    """Second moments of channels and of their estimates; arrays of shape ``(devices, sites)``.

    Every antenna's channel is independent, circular Gaussian with variance ``gain`` (Rayleigh
    fading), its estimate likewise with variance ``quality``, the error with ``gain - quality``.
    """

    gain: FloatArray
    """Power gain, "beta"."""
    quality: FloatArray
    """Mean square of the estimate, "gamma"; between 0 and ``gain``."""
    share: FloatArray
    """``quality / gain``. Devices of one pilot have parallel estimates, in the proportion of their
    shares times gains."""
    pilots: Pilots
    antennas: int
    """Antennas of one access point, "N"."""


def estimate_channels(
    gain: FloatArray, pilots: Pilots, *, antennas: int, pilot_length: int, pilot_snr: float
) -> ChannelEstimate:
    """Return what MMSE estimation leaves, pilot contamination included.

    ``gamma_kl = tau rho beta_kl^2 / (tau rho sum of beta_k'l over k' with k's pilot + 1)``: H. Q.
    Ngo et al., "Cell-free massive MIMO versus small cells", IEEE Trans. Wireless Commun. 16(3),
    2017, section II, for pilots that are either the same or orthogonal.

    Args:
        gain: power gains, shape ``(devices, sites)``.
        pilots: who sends which pilot.
        antennas: antennas of one access point.
        pilot_length: symbols of a pilot, "tau".
        pilot_snr: power of the pilots over the receiver's noise, "rho".

    """
    energy = pilot_length * pilot_snr
    share = energy * gain / (energy * pilots.total(gain) + 1)[pilots.number]
    return ChannelEstimate(gain, share * gain, share, pilots, antennas)
