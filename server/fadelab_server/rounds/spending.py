"""What rounds have cost: by the plan's times, and by the times that were measured. Never mixed."""

import math

import numpy as np
from numpy.typing import NDArray

from fadelab_server.allocator.round_cost import RoundLoad
from fadelab_server.allocator.uplink import F64
from fadelab_server.rounds.config import BudgetConfig
from fadelab_server.rounds.power_control import Left


class RoundCost:
    """One round's cost while it goes on.

    Args:
        planned_s: longest upload and computing, by the formulas.
        planned_j: all uploads and computing, by the formulas.
        load: of the round; its computing counts in both accounts.

    """

    def __init__(self, *, planned_s: float, planned_j: float, load: RoundLoad) -> None:
        self.planned_s = planned_s
        self.planned_j = planned_j
        self._load = load
        self._sending: set[int] = set()
        self._power_w: F64 = np.zeros(len(load.bits))
        self._energy_j: F64 = np.zeros(len(load.bits))
        self._since_s = self._first_s = math.nan
        self._longest_s = 0.0
        self._uploaded_j = 0.0

    def powers_changed(self, power_w: F64, sending: NDArray[np.bool_], now_s: float) -> None:
        """Note which powers are in force from now on, and who sends with them."""
        if math.isnan(self._first_s):
            self._first_s = now_s
        else:
            self._radiate_until(now_s)
        self._since_s = now_s
        self._power_w = power_w.copy()
        self._sending = set(np.flatnonzero(sending & (power_w > 0)).tolist())

    def uploaded(self, device: int, arrived_s: float) -> tuple[float, float]:
        """Return how long a device has sent until its last packet came, and its energy in joules."""
        upload_s = max(0.0, arrived_s - self._first_s)
        if device not in self._sending:
            return 0.0, 0.0
        self._sending.discard(device)
        rest_s = max(0.0, arrived_s - self._since_s)
        upload_j = float(self._energy_j[device] + self._power_w[device] * rest_s)
        self._longest_s = max(self._longest_s, upload_s)
        self._uploaded_j += upload_j
        return upload_s, upload_j

    def _radiate_until(self, now_s: float) -> None:
        for device in self._sending:
            self._energy_j[device] += self._power_w[device] * (now_s - self._since_s)

    @property
    def measured_s(self) -> float:
        """Longest measured upload and computing."""
        return self._longest_s + self._load.compute_s

    @property
    def measured_j(self) -> float:
        """Power times measured time of all uploads, and computing."""
        return self._uploaded_j + self._load.compute_j


class Spending:
    """The sums over all rounds so far, and what budgets leave."""

    def __init__(self, budget: BudgetConfig) -> None:
        self._budget = budget
        self.planned_s = self.planned_j = self.measured_s = self.measured_j = 0.0

    def book(self, cost: RoundCost) -> str | None:
        """Add a round; return which budget it went beyond, or None."""
        self.planned_s += cost.planned_s
        self.planned_j += cost.planned_j
        self.measured_s += cost.measured_s
        self.measured_j += cost.measured_j
        how = self._budget.counts
        left = self.left
        if left.energy_j <= 0:
            return f"the energy budget of {self._budget.energy_j:g} J is spent ({how})"
        if left.latency_s <= 0:
            return f"the latency budget of {self._budget.latency_s:g} s is spent ({how})"
        return None

    @property
    def left(self) -> Left:
        """What is left of the budgets; infinite where there is none."""
        planned = self._budget.counts == "planned"
        used_j, used_s = (
            (self.planned_j, self.planned_s) if planned else (self.measured_j, self.measured_s)
        )
        energy_j, latency_s = self._budget.energy_j, self._budget.latency_s
        return Left(
            math.inf if energy_j is None else energy_j - used_j,
            math.inf if latency_s is None else latency_s - used_s,
        )
