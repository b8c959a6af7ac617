"""Weighted energy and latency by sequential quadratic programming.

``min  th1 * sum_k P p_k b_k / R_k  +  th2 * max_k b_k / R_k,   0 <= p <= 1``, the problem of
A. Mahmoudi, M. Zaher, E. Bjornson, arXiv 2404.18287, here in the variables ``y = ln p`` and t::

    min  ln(th1 * E(e^y) + th2 * e^t)    s.t.    ln(b_k / R_k(e^y)) <= t

which is convex (:mod:`fadelab_server.allocator.log_airtime`). What a round costs besides uploading
is a constant in this sum and plays no part.
"""

import numpy as np

from fadelab_server.allocator.convex_program import Program, solve
from fadelab_server.allocator.log_airtime import LogAirtime, Valued, first_logs
from fadelab_server.allocator.round_cost import Allocation, CostWeights, RoundLoad, Senders
from fadelab_server.allocator.uplink import F64, UplinkStatistics


def sqp_weighted(
    statistics: UplinkStatistics,
    load: RoundLoad,
    *,
    weights: CostWeights,
    start: F64 | None = None,
) -> Allocation:
    """Return the powers with the least weighted sum of energy and latency.

    ``residual`` is that of the optimality conditions, relative to the sum: the global optimum has
    0.

    Args:
        statistics: of the uplink.
        load: what is to be sent.
        weights: of energy and latency.
        start: an earlier round's coefficients; without them the search starts from min-max latency.

    """
    senders = Senders.of(statistics, load)
    airtime = LogAirtime(senders)
    y = first_logs(senders, start)
    found = solve(_program(airtime, weights), np.append(y, airtime.latency(y)[0].max()))
    return senders.allocation(
        np.exp(found.point[:-1]), iterations=found.iterations, residual=found.residual
    )


def _program(airtime: LogAirtime, weights: CostWeights) -> Program:
    def objective(x: F64) -> tuple[float, F64]:
        y, t = x[:-1], x[-1]
        latency = weights.per_s * np.exp(t)
        log_j, slope = airtime.energy(y, airtime.latency(y))
        energy = weights.per_j * np.exp(log_j)
        total = energy + latency
        return float(np.log(total)), np.append(energy * slope, latency) / total

    def constraints(x: F64) -> Valued:
        log_s, derivative = airtime.latency(x[:-1])
        return log_s - x[-1], np.column_stack([derivative, -np.ones(len(log_s))])

    return Program(objective, constraints)
