"""What a device measures during a local period, and the server's scheduler estimates from it.

A few numbers each time: what the convergence bound of DMA-FL (arXiv 2305.13503, assumptions 2, 3 and
theorem 1) takes for granted about a task.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeriodReport:
    """What a device measures during one local period."""

    variability: float
    """Largest ``||grad L(w, d) - grad L(w, d')|| / ||d - d'||`` over some pairs of samples (9)."""
    data_variance: float
    """``sum_d ||d - mean||^2 / (D - 1)``."""
    gradient_sq: float
    """Largest ``||grad F_i(w, d)||^2`` over some samples."""
    regularised_gradient_sq: float
    """Largest ``||grad F_R||^2`` over the steps."""
    smoothness: float
    """``||grad F_i(w) - grad F_i(w')|| / ||w - w'||`` between beginning and end of training (8)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; ValueError says why."""
        values = [getattr(self, name) for name in self.__slots__]
        if not all(0 <= value < math.inf for value in values):
            raise ValueError(f"a report holds finite numbers that are not negative; got {values}")


@dataclass(frozen=True, slots=True)
class DriftReport:
    """How the loss of one model changed while a device's samples did, and nothing else."""

    loss_before: float
    """``F_i(w, D(t - dt))``."""
    loss_after: float
    """``F_i(w, D(t))`` of the same w."""
    elapsed_s: float
    """dt."""
    active: bool
    """Whether the device was computing; else it waited or transferred."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; ValueError says why."""
        if not (math.isfinite(self.loss_before) and math.isfinite(self.loss_after)):
            raise ValueError(f"losses must be finite; got {self.loss_before} and {self.loss_after}")
        if not 0 < self.elapsed_s < math.inf:
            raise ValueError(f"drift needs time to pass; got {self.elapsed_s} s")
