"""Most rounds inside an energy and a latency budget, by sequential quadratic programming.

``max_p min(E_rem / E_round(p), L_rem / l_round(p))``: the scheme with budgets of A. Mahmoudi, M.
Xiao, E. Bjornson, "Accelerating energy-efficient federated learning in cell-free networks with
adaptive quantization", arXiv 2412.20785, as far as its abstract describes it. In the variables ``y
= ln p`` and t::

    min  t   s.t.   ln(E_round(e^y) / E_rem) <= t,   ln((b_k / R_k(e^y) + compute_s) / L_rem) <= t

which is convex (:mod:`fadelab_server.allocator.log_airtime`); ``e^-t`` rounds fit.
"""

import numpy as np

from fadelab_server.allocator.convex_program import Program, solve
from fadelab_server.allocator.log_airtime import LogAirtime, Valued, first_logs
from fadelab_server.allocator.round_cost import Allocation, RoundLoad, Senders
from fadelab_server.allocator.uplink import F64, UplinkStatistics


def sqp_budget(
    statistics: UplinkStatistics,
    load: RoundLoad,
    *,
    energy_j: float,
    latency_s: float,
    start: F64 | None = None,
) -> Allocation:
    """Return the powers with which most rounds fit into what is left of the budgets.

    ``residual`` is that of the optimality conditions, relative to the number of rounds: the global
    optimum has 0.

    Args:
        statistics: of the uplink.
        load: what is to be sent.
        energy_j: what all devices may still spend, > 0.
        latency_s: how long training may still take, > 0.
        start: an earlier round's coefficients; without them the search starts from min-max latency.

    """
    if not (0 < energy_j < np.inf and 0 < latency_s < np.inf):
        raise ValueError(
            f"budgets must be positive and finite; got {energy_j} J and {latency_s} s are left"
        )
    senders = Senders.of(statistics, load)
    y = first_logs(senders, start)
    needs = _Needs(senders, energy_j, latency_s)
    program = Program(needs.level, needs.above_level)
    found = solve(program, np.append(y, needs.shares(y)[0].max()))
    return senders.allocation(
        np.exp(found.point[:-1]), iterations=found.iterations, residual=found.residual
    )


class _Needs:
    """Which share of each budget a round takes, as logarithms over ``x = (y, t)``."""

    def __init__(self, senders: Senders, energy_j: float, latency_s: float) -> None:
        self._airtime = LogAirtime(senders)
        self._log_energy_j = np.log(energy_j)
        self._log_latency_s = np.log(latency_s)
        self._compute_s = senders.load.compute_s

    def shares(self, y: F64) -> Valued:
        """Return ln of the shares: of latency for every device, then of energy."""
        log_s, derivative = self._airtime.latency(y)
        log_j, slope = self._airtime.energy(y, (log_s, derivative))
        upload_s = np.exp(log_s)
        total_s = upload_s + self._compute_s
        return (
            np.append(np.log(total_s) - self._log_latency_s, log_j - self._log_energy_j),
            np.vstack([derivative * (upload_s / total_s)[:, None], slope]),
        )

    def level(self, x: F64) -> tuple[float, F64]:
        """Return t and its gradient."""
        return float(x[-1]), np.append(np.zeros(len(x) - 1), 1.0)

    def above_level(self, x: F64) -> Valued:
        """Return by how much the shares exceed t."""
        shares, derivative = self.shares(x[:-1])
        return shares - x[-1], np.column_stack([derivative, -np.ones(len(shares))])
