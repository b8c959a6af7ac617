"""What a round costs: upload latency and energy for given powers.

``l_k = b_k / R_k`` and ``E_k = P p_k l_k``; the round takes the longest upload plus computing and
costs the sum of all energies (A. Mahmoudi, M. Zaher, E. Bjornson, "Joint energy and latency
optimization in federated learning over cell-free massive MIMO networks", arXiv 2404.18287).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from fadelab_server.allocator.uplink import F64, Index, UplinkStatistics

FAINTEST_SINR = 1e-15
"""Who has less at full power and without the others is not heard: some bits in a year."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundLoad:
    """What is to be done in a round."""

    bits: F64
    """Size of every device's upload, shape ``(devices,)``; 0: the device has nothing to send."""
    compute_s: float = 0.0
    """Time of the round that is not uploading."""
    compute_j: float = 0.0
    """Energy of all devices that is not radiated."""

    def __post_init__(self) -> None:
        """Refuse what is no load; ValueError says why."""
        if self.bits.ndim != 1 or not np.all(np.isfinite(self.bits) & (self.bits >= 0)):
            raise ValueError("bits must be one array of finite numbers that are not negative")
        if not (0 <= self.compute_s < np.inf and 0 <= self.compute_j < np.inf):
            raise ValueError(
                f"compute_s and compute_j must be finite and not negative; got {self.compute_s} and "
                f"{self.compute_j}"
            )


@dataclass(frozen=True, slots=True)
class CostWeights:
    """What makes one sum of energy and latency: ``th1 * energy + th2 * latency``."""

    per_j: float
    """"th1", >= 0."""
    per_s: float
    """"th2", > 0: without it the best power would be none at all."""

    def __post_init__(self) -> None:
        """Refuse weights without an optimum; ValueError says why."""
        if not (0 <= self.per_j < np.inf and 0 < self.per_s < np.inf):
            raise ValueError(
                f"weights must be finite, that of energy not negative and that of latency positive; "
                f"got {self.per_j} per joule and {self.per_s} per second"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """Power coefficients, and what they are predicted to lead to; arrays over devices."""

    coefficient: F64
    """``p_k`` in [0, 1]; 0 for devices that have nothing to send or that nobody hears."""
    rate_bps: F64
    upload_s: F64
    """Infinite for a device that has something to send and no rate."""
    upload_j: F64
    round_s: float
    round_j: float
    iterations: int
    """Steps of the method that were needed."""
    residual: float
    """What is left of the method's optimality condition; its file says which. 0 is perfect."""

    def rounds_within(self, *, energy_j: float, latency_s: float) -> float:
        """Return how many such rounds fit into both budgets, a fraction included."""
        return min(energy_j / self.round_j, latency_s / self.round_s)


@dataclass(frozen=True, slots=True, eq=False)
class Senders:
    """The devices that send in a round, and the problem without the others."""

    everybody: UplinkStatistics
    load: RoundLoad
    index: Index
    """Who sends."""
    statistics: UplinkStatistics
    """Of those who send."""
    bits: F64
    """Of those who send."""

    @classmethod
    def of(cls, statistics: UplinkStatistics, load: RoundLoad) -> Self:
        """Leave out who has nothing to send or cannot be heard.

        Raises:
            ValueError: nobody is left, or the load is that of another number of devices.

        """
        if load.bits.shape != statistics.noise.shape:
            raise ValueError(
                f"there are bits for {len(load.bits)} devices and statistics for "
                f"{len(statistics.noise)}"
            )
        alone = statistics.coherent_gain / (statistics.own_interference + statistics.noise)
        index = np.flatnonzero((load.bits > 0) & (alone >= FAINTEST_SINR))
        if not len(index):
            raise ValueError("no device has anything to send that an access point could hear")
        return cls(statistics, load, index, statistics.of(index), load.bits[index])

    def start(self, coefficient: F64 | None) -> F64 | None:
        """Return the senders' part of an earlier round's coefficients."""
        return None if coefficient is None else coefficient[self.index]

    def allocation(self, coefficient: F64, *, iterations: int, residual: float) -> Allocation:
        """Predict what the senders' coefficients lead to."""
        power = np.zeros(len(self.load.bits))
        power[self.index] = np.clip(coefficient, 0.0, 1.0)
        rate_bps = self.everybody.rate_bps(power)
        upload_s = np.zeros(len(power))
        waiting = self.load.bits > 0
        # A rate that underflows is none: the upload does not end.
        with np.errstate(divide="ignore", over="ignore"):
            upload_s[waiting] = self.load.bits[waiting] / rate_bps[waiting]
        upload_j = np.zeros(len(power))
        radiated_w = self.everybody.full_power_w * power
        sending = radiated_w > 0
        upload_j[sending] = radiated_w[sending] * upload_s[sending]
        return Allocation(
            power,
            rate_bps,
            upload_s,
            upload_j,
            float(upload_s.max()) + self.load.compute_s,
            float(upload_j.sum()) + self.load.compute_j,
            iterations,
            residual,
        )
