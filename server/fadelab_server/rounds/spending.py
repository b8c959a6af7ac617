"""What rounds have cost: by the plan's times, and by the times that were measured. Never mixed."""

import math
from collections.abc import Mapping

from fadelab_server.rounds.config import BudgetConfig
from fadelab_server.rounds.power_control import Left


class RoundCost:
    """One round's cost while it goes on.

    Args:
        planned_s: longest upload and computing, by the formulas.
        planned_j: all uploads and computing, by the formulas.
        compute_s: longest computing of a device; counts in both accounts.
        compute_j: computing of all devices; likewise.

    """

    def __init__(
        self, *, planned_s: float, planned_j: float, compute_s: float, compute_j: float
    ) -> None:
        self.planned_s = planned_s
        self.planned_j = planned_j
        self._compute_s = compute_s
        self._compute_j = compute_j
        self._power_w: dict[int, float] = {}
        """By device, of those who send."""
        self._energy_j: dict[int, float] = {}
        """By device, radiated before the powers changed last."""
        self._since_s = self._first_s = math.nan
        self._longest_s = 0.0
        self._uploaded_j = 0.0

    def powers_changed(self, power_w: Mapping[int, float], now_s: float) -> None:
        """Note which powers are in force from now on, by device, of all who send."""
        if math.isnan(self._first_s):
            self._first_s = now_s
        for device, own_w in self._power_w.items():
            before_j = self._energy_j.get(device, 0.0)
            self._energy_j[device] = before_j + own_w * (now_s - self._since_s)
        self._since_s = now_s
        self._power_w = dict(power_w)

    def uploaded(self, device: int, arrived_s: float) -> tuple[float, float]:
        """Return how long a device has sent until its last packet came, and its energy in joules."""
        power_w = self._power_w.pop(device, None)
        if power_w is None:
            return 0.0, 0.0
        upload_s = max(0.0, arrived_s - self._first_s)
        rest_s = max(0.0, arrived_s - self._since_s)
        upload_j = self._energy_j.get(device, 0.0) + power_w * rest_s
        self._longest_s = max(self._longest_s, upload_s)
        self._uploaded_j += upload_j
        return upload_s, upload_j

    @property
    def measured_s(self) -> float:
        """Longest measured upload and computing."""
        return self._longest_s + self._compute_s

    @property
    def measured_j(self) -> float:
        """Power times measured time of all uploads, and computing."""
        return self._uploaded_j + self._compute_j


class Spending:
    """The sums over all rounds so far, and what budgets leave."""

    def __init__(self, budget: BudgetConfig) -> None:
        self._budget = budget
        self.planned_s = self.planned_j = self.measured_s = self.measured_j = 0.0

    def add(self, cost: RoundCost) -> None:
        """Add a round."""
        self.planned_s += cost.planned_s
        self.planned_j += cost.planned_j
        self.measured_s += cost.measured_s
        self.measured_j += cost.measured_j

    @property
    def sums(self) -> tuple[float, ...]:
        """Planned seconds and joules, measured seconds and joules."""
        return self.planned_s, self.planned_j, self.measured_s, self.measured_j

    @sums.setter
    def sums(self, values: tuple[float, ...]) -> None:
        self.planned_s, self.planned_j, self.measured_s, self.measured_j = values

    @property
    def over(self) -> str | None:
        """Say which budget was gone beyond, or None."""
        how, left = self._budget.counts, self.left
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
