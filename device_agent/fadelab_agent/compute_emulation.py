"""A processor that is said to be slower than the real one, and whether the real one kept up.

Time and energy of computing follow from cycles per sample, clock, batch and steps (DMA-FL, arXiv
2305.13503, equations 20 and 21). Training that really takes longer than it is said to makes the run
slower than its emulated time: it counts against the run's validity.
"""

from dataclasses import dataclass, replace
from typing import Self

from fadelab_agent.compute import compute_energy_j, compute_time_s
from fadelab_agent.config import ComputeConfig
from fadelab_proto.local_period import LocalPlan


@dataclass(frozen=True, slots=True)
class EmulatedComputing:
    """What one local training is said to take."""

    compute_s: float
    compute_j: float


def emulated_computing(
    config: ComputeConfig, plan: LocalPlan, *, samples: int
) -> EmulatedComputing:
    """Return emulated time and energy of a plan's computing.

    Args:
        config: the device's processor; its clock is replaced by the plan's.
        plan: clock, batch and steps.
        samples: D, local samples; no batch is larger.

    """
    clocked = config.model_copy(update={"cpu_hz": plan.cpu_hz})
    batch_size = min(plan.batch_size, samples)
    return EmulatedComputing(
        compute_time_s(clocked, steps=plan.steps, batch_size=batch_size),
        compute_energy_j(clocked, steps=plan.steps, batch_size=batch_size),
    )


@dataclass(frozen=True, slots=True)
class ComputeBudget:
    """How real training times compare with emulated ones, added up over a run.

    Both in emulated seconds: with ``radio.time_scale`` k a real second is k of them.
    """

    trainings: int = 0
    overruns: int = 0
    """Trainings that took longer than their emulated time."""
    emulated_s: float = 0.0
    real_s: float = 0.0
    late_s: float = 0.0
    """By how much those that took longer did so, together."""
    worst_ratio: float = 0.0
    """Largest real over emulated time."""

    def with_training(self, *, emulated_s: float, real_s: float) -> Self:
        """Return the budget with one more training."""
        if not (emulated_s > 0 and real_s >= 0):
            raise ValueError(f"a training cannot take {real_s} of {emulated_s} s")
        late_s = max(0.0, real_s - emulated_s)
        return replace(
            self,
            trainings=self.trainings + 1,
            overruns=self.overruns + (late_s > 0),
            emulated_s=self.emulated_s + emulated_s,
            real_s=self.real_s + real_s,
            late_s=self.late_s + late_s,
            worst_ratio=max(self.worst_ratio, real_s / emulated_s),
        )

    def together(self, other: Self) -> Self:
        """Return both budgets as one."""
        return replace(
            self,
            trainings=self.trainings + other.trainings,
            overruns=self.overruns + other.overruns,
            emulated_s=self.emulated_s + other.emulated_s,
            real_s=self.real_s + other.real_s,
            late_s=self.late_s + other.late_s,
            worst_ratio=max(self.worst_ratio, other.worst_ratio),
        )

    def complaint(self, *, most_late_share: float) -> str | None:
        """Return why computing was not as emulated, or None.

        Args:
            most_late_share: how much lateness is let pass, as a share of all emulated computing.

        """
        if self.late_s <= most_late_share * self.emulated_s:
            return None
        return (
            f"{self.overruns} of {self.trainings} trainings took longer than their emulated time, "
            f"by {self.late_s:.3g} s of {self.emulated_s:.3g} s in all; at most "
            f"{100 * most_late_share:g} % is allowed"
        )
