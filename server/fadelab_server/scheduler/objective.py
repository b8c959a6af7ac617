"""The objective of problem P (29a) of DMA-FL (arXiv 2305.13503)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fadelab_server.scheduler.schedule import PeriodCosts


@dataclass(frozen=True, slots=True)
class CostWeights:
    """c1, c2 and c3: what learning, devices' energy and the base station's energy count."""

    learning: float
    device_j: float
    station_j: float

    def __post_init__(self) -> None:
        """Refuse weights that reward losses; ValueError says why."""
        weights = (self.learning, self.device_j, self.station_j)
        if not all(0 <= weight < np.inf for weight in weights):
            raise ValueError(f"weights must be finite and not negative; got {weights}")


@dataclass(frozen=True, slots=True)
class TaskWeights:
    """What one task's learning (gamma) and energy (chi) count beside the others'."""

    importance: float = 1.0
    energy: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that reward losses; ValueError says why."""
        if not (0 <= self.importance < np.inf and 0 <= self.energy < np.inf):
            raise ValueError(
                f"weights must be finite and not negative; got {self.importance} and {self.energy}"
            )


def objective(
    weights: CostWeights,
    tasks: Sequence[TaskWeights],
    bounds: Sequence[float],
    spent: Sequence[PeriodCosts],
) -> float:
    """Return ``c1 sum_j gamma_j Conv_j + sum_j chi_j / G_j sum (c2 (E_U + E_C) + c3 E_D)``.

    (29a) has a second sum over tasks inside the first, which would count every energy J times.

    Args:
        weights: c1, c2 and c3.
        tasks: gamma and chi of each.
        bounds: Conv of each.
        spent: energies of each.

    """
    total = 0.0
    for task, bound, cost in zip(tasks, bounds, spent, strict=True):
        aggregations = cost.device_j.shape[1]
        energy = weights.device_j * cost.device_j.sum() + weights.station_j * cost.download_j.sum()
        total += weights.learning * task.importance * bound + task.energy * energy / aggregations
    return total
