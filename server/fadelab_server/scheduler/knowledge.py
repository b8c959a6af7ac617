"""From what was measured to what the bound and the scheduler are asked: plain conversions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fadelab_proto.local_period import LocalPlan
from fadelab_server.scheduler.bound import CompletedPeriods, TaskConstants
from fadelab_server.scheduler.estimates import DriftRates, Suprema
from fadelab_server.scheduler.objective import CostWeights, TaskWeights
from fadelab_server.scheduler.resources import PeriodTerms


@dataclass(frozen=True, slots=True)
class CompletedPeriod:
    """One local period whose upload has made an aggregation."""

    learning_rate: float
    plan: LocalPlan
    samples: int
    """D when it began."""
    dissimilarity: float
    data_variance: float
    idle_drift: float
    """Change of loss while the device waited or transferred, over I; at least 0 (16)."""
    active_drift: float
    """The same while it computed (17)."""


def completed_periods(periods: Sequence[CompletedPeriod]) -> CompletedPeriods:
    """Return periods, in the order of their aggregations, as the bound takes them."""

    def column(values: Sequence[float]) -> np.ndarray:
        return np.array(values, dtype=np.float64)

    return CompletedPeriods(
        learning_rate=column([period.learning_rate for period in periods]),
        steps=column([period.plan.steps for period in periods]),
        # A device takes what it holds if that is less than a batch.
        batch_size=column([min(period.plan.batch_size, period.samples) for period in periods]),
        samples=column([period.samples for period in periods]),
        dissimilarity=column([period.dissimilarity for period in periods]),
        data_variance=column([period.data_variance for period in periods]),
        idle_drift=column([period.idle_drift for period in periods]),
        active_drift=column([period.active_drift for period in periods]),
    )


def task_constants(
    seen: Suprema, *, proximal: float, mixing: Sequence[float], staleness: int
) -> TaskConstants:
    """Return what the bound assumes of a task, with the suprema that were seen.

    Args:
        seen: of all reports on the task.
        proximal: rho.
        mixing: alpha of every aggregation, at least one.
        staleness: K that was reached, or the cap.

    """
    return TaskConstants(
        smoothness=seen.smoothness,
        variability=seen.variability,
        proximal=proximal,
        gradient_sq=seen.gradient_sq,
        regularised_gradient_sq=seen.regularised_gradient_sq,
        mixing_min=min(mixing),
        mixing_max=max(mixing),
        staleness=staleness,
    )


@dataclass(frozen=True, slots=True)
class ProcessorTerms:
    """One device's processor, for one task."""

    cycles_per_sample: float
    capacitance_j_s2: float
    cpu_min_hz: float
    cpu_max_hz: float


@dataclass(frozen=True, slots=True)
class LocalKnowledge:
    """What is known of one device's data of one task."""

    samples: int
    dissimilarity: float
    data_variance: float
    drift: DriftRates


def period_terms(
    seen: Suprema,
    local: LocalKnowledge,
    processor: ProcessorTerms,
    weights: tuple[CostWeights, TaskWeights],
    *,
    learning_rate: float,
    learning_rate_min: float,
    proximal: float,
    steps: tuple[int, int],
) -> PeriodTerms:
    """Return what decides about a local period.

    Args:
        seen: suprema of the task.
        local: of the device's data.
        processor: of the device.
        weights: c1 to c3, and the task's gamma and chi.
        learning_rate: eta of the version that the period begins with.
        learning_rate_min: the least of the run.
        proximal: rho.
        steps: e_min and e_max.

    """
    cost, task = weights
    return PeriodTerms(
        learning=cost.learning * task.importance / learning_rate_min,
        per_j=cost.device_j * task.energy,
        learning_rate=learning_rate,
        dissimilarity=local.dissimilarity,
        smoothness=seen.smoothness,
        variability=seen.variability,
        data_variance=local.data_variance,
        proximal=proximal,
        regularised_gradient_sq=seen.regularised_gradient_sq,
        samples=local.samples,
        idle_drift_per_s=local.drift.idle_per_s,
        active_drift_per_s=local.drift.active_per_s,
        cycles_per_sample=processor.cycles_per_sample,
        capacitance_j_s2=processor.capacitance_j_s2,
        cpu_min_hz=processor.cpu_min_hz,
        cpu_max_hz=processor.cpu_max_hz,
        steps_min=steps[0],
        steps_max=steps[1],
    )
