"""How long local periods may be: the share of waiting that keeps a device within its energy.

DMA-FL (arXiv 2305.13503) has a device wait before it downloads, to save energy (29c), and pays for
it by idle drift, term (f), and by fewer aggregations, term (a). With periods of length L_j that cost
E_j each, a device spends ``sum_j E_j / L_j`` watts, and a second more of L_j costs::

    kappa_j = k_j (2 Delta_ID + 2 (F(w0) - F(wG)) / (alpha I T_QoE)),    k_j = c1 gamma_j / eta_min

``min sum_j kappa_j L_j`` under a limit of P watts has the solution ``L_j = sqrt(E_j / kappa_j) sum_i
sqrt(E_i kappa_i) / P``; no period is shorter than its transfers and computing. (Reconstructed here;
the paper leaves the waiting time to a general solver.)
"""

from dataclasses import dataclass

import numpy as np

from fadelab_server.scheduler.tensors import F64


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What a device's tasks need; arrays of shape ``(tasks,)``."""

    energy_j: F64
    """Of one local period: computing and sending."""
    busy_s: F64
    """Of one local period: transfers and computing."""
    delay_cost: F64
    """kappa: what a second of a longer period costs, at least 0."""

    def __post_init__(self) -> None:
        """Refuse what is no demand; ValueError says why."""
        if np.any(self.energy_j < 0) or np.any(self.busy_s <= 0) or np.any(self.delay_cost < 0):
            raise ValueError("energies and costs cannot be negative, busy times must be positive")


def delay_cost(
    *,
    learning: float,
    idle_drift_per_s: float,
    loss_to_gain: float,
    mixing: float,
    devices: int,
    window_s: float,
) -> float:
    """Return kappa.

    Args:
        learning: ``c1 gamma / eta_min``.
        idle_drift_per_s: Delta_ID.
        loss_to_gain: ``F(w0) - F(wG)`` that is expected of the task, at least 0.
        mixing: alpha.
        devices: I.
        window_s: T_QoE.

    """
    sooner = max(loss_to_gain, 0.0) / (mixing * devices * window_s)
    return 2 * learning * (max(idle_drift_per_s, 0.0) + sooner)


def period_lengths_s(demand: Demand, *, limit_w: float) -> F64:
    """Return the lengths L of the tasks' local periods, shape ``(tasks,)``.

    Args:
        demand: of the tasks.
        limit_w: P, positive: energy left over time left.

    """
    if float((demand.energy_j / demand.busy_s).sum()) <= limit_w:
        return demand.busy_s.copy()
    # A task that nothing is lost by comes last, but must not divide by zero.
    kappa = np.maximum(demand.delay_cost, 1e-12 * (float(demand.delay_cost.max()) or 1.0))
    lengths_s = demand.busy_s.copy()
    free = demand.energy_j > 0
    while free.any():
        left_w = limit_w - float((demand.energy_j[~free] / demand.busy_s[~free]).sum())
        root = float(np.sqrt(demand.energy_j * kappa)[free].sum()) / left_w
        wanted_s = np.sqrt(demand.energy_j / kappa) * root
        short = free & (wanted_s < demand.busy_s)
        if not short.any():
            lengths_s[free] = wanted_s[free]
            break
        free &= ~short
    return lengths_s
