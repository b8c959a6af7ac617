"""Max-min energy efficiency by the generalised method of Dinkelbach.

``max_p min_k log2(1 + SINR_k) / (z0 P p_k + z1)``: each step solves ``F(lam) = max_p min_k [log2(1
+ SINR_k) - lam (z0 P p_k + z1)]`` and sets lam to the least ratio that was attained, until F is 0
(J. P. Crouzeix, J. A. Ferland, S. Schaible, "An algorithm for generalized fractional programs", J.
Optim. Theory Appl. 47(1), 1985; for cell-free uplinks with ``z0 = z1 = 1`` the baseline of arXiv
2412.10878). How much anybody has to send plays no part.

A step is solved in the variables ``y = ln p`` and ``u = ln(F + lam z1)``::

    max  u   s.t.   ln(e^u + lam z0 P e^y_k) - ln log2(1 + SINR_k(e^y)) <= 0

which is convex (:mod:`fadelab_server.allocator.log_airtime`).
"""

import numpy as np

from fadelab_server.allocator.convex_program import Program, solve
from fadelab_server.allocator.log_airtime import LogAirtime, Valued, first_logs
from fadelab_server.allocator.round_cost import Allocation, RoundLoad, Senders
from fadelab_server.allocator.uplink import F64, UplinkStatistics

_TOLERANCE = 1e-8
_MOST_STEPS = 50


def dinkelbach(
    statistics: UplinkStatistics,
    load: RoundLoad,
    *,
    radiated_per_w: float = 1.0,
    constant: float = 1.0,
    start: F64 | None = None,
) -> Allocation:
    """Return the powers with the largest least energy efficiency.

    ``residual`` is ``F`` at the end, in bit/s/Hz: 0 at the optimum. ``iterations`` counts the steps
    of all inner problems.

    Args:
        statistics: of the uplink.
        load: what is to be sent; only who sends matters.
        radiated_per_w: weight of the radiated power, "z0", > 0.
        constant: the power that is spent anyway, "z1", > 0, in the same unit.
        start: an earlier round's coefficients; without them the search starts from min-max latency.

    """
    if not (0 < radiated_per_w < np.inf and 0 < constant < np.inf):
        raise ValueError(
            f"the weights of power must be positive and finite; got {radiated_per_w} and {constant}"
        )
    senders = Senders.of(statistics, load)
    y = first_logs(senders, start)
    airtime = LogAirtime(senders)
    weight = radiated_per_w * statistics.full_power_w
    iterations, left = 0, np.inf
    for _ in range(_MOST_STEPS):
        ratio = float((_spectral_efficiency(airtime, y) / (weight * np.exp(y) + constant)).min())
        price = ratio * weight
        first = (_spectral_efficiency(airtime, y) - price * np.exp(y)).min()
        found = solve(_program(airtime, len(y), price), np.append(y, np.log(first)))
        iterations += found.iterations
        trial = found.point[:-1]
        surplus = (_spectral_efficiency(airtime, trial) - price * np.exp(trial)).min()
        left = float(surplus) - ratio * constant
        if left > 0:
            y = trial
        if left < _TOLERANCE:
            break
    return senders.allocation(np.exp(y), iterations=iterations, residual=abs(left))


def _spectral_efficiency(airtime: LogAirtime, y: F64) -> F64:
    efficiency: F64 = np.exp(airtime.nats(y)[0]) / np.log(2)
    return efficiency


def _program(airtime: LogAirtime, devices: int, price: float) -> Program:
    log_price = np.log(price)

    def objective(x: F64) -> tuple[float, F64]:
        return -float(x[-1]), np.append(np.zeros(devices), -1.0)

    def constraints(x: F64) -> Valued:
        y, u = x[:-1], x[-1]
        nats, derivative = airtime.nats(y)
        needed = np.logaddexp(u, log_price + y)
        share = np.exp(log_price + y - needed)
        jacobian = np.column_stack([-derivative, 1 - share])
        jacobian[np.diag_indices(devices)] += share
        return needed - nats + np.log(np.log(2)), jacobian

    return Program(objective, constraints)
