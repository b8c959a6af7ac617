"""What the quality of a task's models is measured in.

Apart from the tasks, so that reading an experiment or a run needs no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of quality on the held-out test set."""

    name: str
    unit: str
    """Empty where it has none."""
    higher_is_better: bool

    def best(self, values: Iterable[float]) -> float:
        """Return the best of some readings, of which there must be one."""
        return max(values) if self.higher_is_better else min(values)


class Baseline(NamedTuple):
    """What a rule that learns nothing achieves on a task's test set."""

    name: str
    metric: float


ACCURACY = Metric("accuracy", "", higher_is_better=True)
"""The share of samples whose class was told right, 0 to 1."""

DISPLACEMENT = Metric("ADE", "m", higher_is_better=False)
"""Average displacement error: mean distance between predicted and true positions, over all times.

Chang et al., "Argoverse: 3D tracking and forecasting with rich maps", CVPR 2019, for one
prediction of each track.
"""
