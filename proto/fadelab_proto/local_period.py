"""Times and energies of a local period: waiting, downloading, computing, uploading.

Equations (20) to (26) of Chang, Hosseinalipour, Chiang and Brinton, "Asynchronous multi-model
dynamic federated learning over wireless networks" (DMA-FL, arXiv 2305.13503). All functions take
numbers or arrays and broadcast; the indicators R and U of the paper are the caller's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64] | float


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What a device is told about its next local period of a task."""

    cpu_hz: float
    """Clock frequency f that the period's computing is said to have."""
    batch_size: int
    """Samples in each step, B."""
    steps: int
    """Local SGD steps, e."""
    idle_s: float
    """Time to wait before downloading, T_ID."""

    def __post_init__(self) -> None:
        """Refuse what nobody can carry out; ValueError says why."""
        if not (0 < self.cpu_hz < np.inf and 0 <= self.idle_s < np.inf):
            raise ValueError(
                f"a plan needs a positive finite clock and a finite idle time that is not "
                f"negative; got {self.cpu_hz} Hz and {self.idle_s} s"
            )
        if self.batch_size < 1 or self.steps < 1:
            raise ValueError(
                f"a plan needs at least one sample and one step; got batches of {self.batch_size} "
                f"and {self.steps} steps"
            )


def compute_time_s(
    *, cycles_per_sample: Numbers, steps: Numbers, batch_size: Numbers, cpu_hz: Numbers
) -> Numbers:
    """Return the seconds of local training: ``a e B / f`` (20)."""
    return cycles_per_sample * steps * batch_size / cpu_hz


def compute_energy_j(
    *,
    capacitance_j_s2: Numbers,
    cycles_per_sample: Numbers,
    steps: Numbers,
    batch_size: Numbers,
    cpu_hz: Numbers,
) -> Numbers:
    """Return the joules of local training: ``xi e a B f^2`` (21)."""
    return capacitance_j_s2 * (cycles_per_sample * steps * batch_size) * cpu_hz**2


def shannon_rate_bps(
    *,
    bandwidth_hz: Numbers,
    power_w: Numbers,
    gain: Numbers,
    noise_w_hz: Numbers,
) -> Numbers:
    """Return ``B log2(1 + |h|^2 p / (N0 B))`` (22) (24).

    The paper writes a logarithm without a base; bits need base 2.

    Args:
        bandwidth_hz: B.
        power_w: p.
        gain: power gain ``|h|^2``.
        noise_w_hz: noise power spectral density N0.

    """
    snr = gain * power_w / (noise_w_hz * bandwidth_hz)
    rate_bps: Numbers = bandwidth_hz * np.log1p(snr) / np.log(2.0)
    return rate_bps


def transfer_time_s(*, bits_per_entry: Numbers, entries: Numbers, rate_bps: Numbers) -> Numbers:
    """Return the seconds that a model is on the air: ``sigma M / r`` (23) (25)."""
    return bits_per_entry * entries / rate_bps


def transfer_energy_j(*, power_w: Numbers, airtime_s: Numbers) -> Numbers:
    """Return the joules of sending a model: ``p T`` (23) (25)."""
    return power_w * airtime_s


def period_s(
    *, idle_s: Numbers, download_s: Numbers, compute_s: Numbers, upload_s: Numbers
) -> Numbers:
    """Return the length of a local period: ``T_ID + T_D + T_C + T_U`` (26)."""
    return idle_s + download_s + compute_s + upload_s
