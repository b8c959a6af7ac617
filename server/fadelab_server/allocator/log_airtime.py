"""Latency and energy as convex functions of the logarithms of powers.

With ``y_k = ln p_k`` the logarithm of a SINR is concave (its denominator is a sum of exponentials),
and ``-ln ln(1 + e^s)`` is convex and falls with s. So ``ln(b_k / R_k)`` is convex in y, and with it
every upload's energy, their sum and the longest latency: what a local method finds for these is the
best of all. The transform is that of M. Chiang et al., "Power control by geometric programming",
IEEE Trans. Wireless Commun. 6(7), 2007; nothing is approximated here.
"""

import numpy as np

from fadelab_server.allocator.min_max_latency import least_latency
from fadelab_server.allocator.round_cost import Senders
from fadelab_server.allocator.uplink import F64

LOWEST = float(np.log(1e-12))
"""Below this no power changes anything: 120 dB under full power."""

Valued = tuple[F64, F64]
"""Values, shape ``(n,)``, and their derivatives, shape ``(n, variables)``."""


def first_logs(senders: Senders, start: F64 | None) -> F64:
    """Return ``ln p`` of an earlier round's coefficients; without them, of min-max latency."""
    coefficient = senders.start(start)
    if coefficient is None:
        coefficient, _, _ = least_latency(senders, None)
    return np.log(np.clip(coefficient, np.exp(LOWEST), 1.0))


class LogAirtime:
    """``ln(b_k / R_k)`` over ``y = ln p`` for the devices that send."""

    def __init__(self, senders: Senders) -> None:
        statistics = senders.statistics
        self._gain = statistics.coherent_gain / statistics.noise
        self._own = statistics.own_interference / statistics.noise
        self._cross = statistics.cross_interference / statistics.noise[:, None]
        # ln of the latency at one nat per symbol.
        self._scale = np.log(senders.bits * np.log(2) / statistics.usable_bandwidth_hz)
        self._full_power = np.log(statistics.full_power_w)
        self._compute_j = senders.load.compute_j

    def nats(self, y: F64) -> Valued:
        """Return ``ln ln(1 + SINR_k)`` and its derivatives."""
        power = np.exp(y)
        arriving = self._cross * power
        own = self._own * power
        disturbance = own + arriving.sum(axis=1) + 1
        sinr = self._gain * power / disturbance
        nats = np.log1p(sinr)
        # d ln ln(1 + s) / d ln s
        slope = sinr / ((1 + sinr) * nats)
        derivative = arriving * -(slope / disturbance)[:, None]
        derivative[np.diag_indices(len(y))] = slope * (1 - own / disturbance)
        return np.log(nats), derivative

    def latency(self, y: F64) -> Valued:
        """Return ``ln(b_k / R_k)`` and its derivatives."""
        nats, derivative = self.nats(y)
        return self._scale - nats, -derivative

    def energy(self, y: F64, latency: Valued) -> tuple[float, F64]:
        """Return ``ln(sum_k E_k + compute_j)`` and its gradient, from :meth:`latency` at ``y``."""
        log_s, derivative = latency
        log_j = self._full_power + y + log_s
        largest = log_j.max()
        each = np.exp(log_j - largest)
        total = each.sum() + self._compute_j * np.exp(-largest)
        share = each / total
        return float(largest + np.log(total)), share + share @ derivative
