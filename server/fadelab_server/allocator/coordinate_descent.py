"""Weighted energy and latency, one device's power after the other.

``th1 * sum_k P p_k b_k / R_k + th2 * max_k b_k / R_k`` is minimised over one coefficient at a time,
in turns, as in A. Mahmoudi, M. Zaher, E. Bjornson, arXiv 2404.18287. Along ``ln p_k`` the sum is
convex (:mod:`fadelab_server.allocator.log_airtime`), so a search on a grid that closes in finds its
least value.

Turns over single variables come to a stop at kinks: where several latencies are the longest, no
device alone can shorten the round. The maximum is therefore smoothed to the norm ``(sum_k
l_k^n)^(1/n)``, which exceeds it by at most the factor ``K^(1/n)``; the result is near the optimum
of :mod:`fadelab_server.allocator.sqp_weighted`, and does not reach it.
"""

import numpy as np

from fadelab_server.allocator.log_airtime import LOWEST, first_logs
from fadelab_server.allocator.round_cost import Allocation, CostWeights, RoundLoad, Senders
from fadelab_server.allocator.uplink import F64, UplinkStatistics

_TOLERANCE = 1e-5
_MOST_SWEEPS = 60
_GRID = np.linspace(0.0, 1.0, 17)
_RESOLUTION = 1e-3
# After the first turn powers change little; a search that ends at its edge goes on in the next.
_REACH = 1.0


def coordinate_descent(
    statistics: UplinkStatistics,
    load: RoundLoad,
    *,
    weights: CostWeights,
    order: float = 32.0,
    start: F64 | None = None,
) -> Allocation:
    """Return powers that no change of a single one improves by much.

    ``residual`` is the relative improvement of the last turn; ``iterations`` counts turns over all
    devices.

    Args:
        statistics: of the uplink.
        load: what is to be sent.
        weights: of energy and latency.
        order: of the norm that stands for the maximum, "n", >= 1; infinite: the maximum itself.
        start: an earlier round's coefficients; without them the search starts from min-max latency.

    """
    if not order >= 1:
        raise ValueError(f"the order of the norm must be at least 1; got {order}")
    senders = Senders.of(statistics, load)
    descent = _Descent(senders, weights, order)
    power = np.exp(first_logs(senders, start))
    before = descent.cost(power)
    sweeps, gained = 0, np.inf
    while gained > _TOLERANCE and sweeps < _MOST_SWEEPS:
        for device in range(len(power)):
            power[device] = descent.best_power(power, device, reach=_REACH if sweeps else np.inf)
        sweeps += 1
        after = descent.cost(power)
        gained, before = 1 - after / before, after
    return senders.allocation(power, iterations=sweeps, residual=gained)


class _Descent:
    def __init__(self, senders: Senders, weights: CostWeights, order: float) -> None:
        self._statistics = senders.statistics
        self._nat_s = senders.bits * np.log(2) / senders.statistics.usable_bandwidth_hz
        self._per_j = weights.per_j * senders.statistics.full_power_w
        self._per_s = weights.per_s
        self._order = order

    def cost(self, power: F64) -> float:
        """Return the weighted sum."""
        return float(self._costs(power[:, None], self._statistics.disturbance(power)[:, None])[0])

    def best_power(self, power: F64, device: int, *, reach: float) -> float:
        """Return one device's best power while the others keep theirs; ``ln p`` moves so far."""
        statistics = self._statistics
        disturbance = statistics.disturbance(power)
        change = statistics.cross_interference[:, device].copy()
        change[device] = statistics.own_interference[device]
        here = float(np.log(power[device]))
        low, high = max(here - reach, LOWEST), min(here + reach, 0.0)
        best, least = float(power[device]), self.cost(power)
        while high - low > _RESOLUTION:
            grid = low + (high - low) * _GRID
            tried = np.exp(grid)
            powers = np.repeat(power[:, None], len(grid), axis=1)
            powers[device] = tried
            moved = disturbance[:, None] + change[:, None] * (tried - power[device])
            costs = self._costs(powers, moved)
            at = int(costs.argmin())
            if costs[at] < least:
                best, least = float(tried[at]), costs[at]
            low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
        return best

    def _costs(self, power: F64, disturbance: F64) -> F64:
        """Return the weighted sums of many settings, of shape ``(devices, settings)``."""
        nats = np.log1p(self._statistics.coherent_gain[:, None] * power / disturbance)
        upload_s = self._nat_s[:, None] / nats
        longest_s = upload_s.max(axis=0)
        norm_s = longest_s * ((upload_s / longest_s) ** self._order).sum(axis=0) ** (
            1 / self._order
        )
        costs: F64 = self._per_j * (power * upload_s).sum(axis=0) + self._per_s * norm_s
        return costs
