"""The convergence bound of DMA-FL (arXiv 2305.13503, theorem 1, equation 19), term by term.

Every aggregation completes one local period, so the sums over X are sums over aggregations: arrays
here are over completed periods, in the order of the aggregations that they made.

Term (e) is a sum of powers of ``K alpha``: unless that product is below 1, it grows without limit.
"""

from dataclasses import dataclass

import numpy as np

from fadelab_server.scheduler.tensors import F64


@dataclass(frozen=True, slots=True, eq=False)
class CompletedPeriods:
    """What is known of the local periods behind aggregations 0, 1, ...; shape ``(aggregations,)``."""

    learning_rate: F64
    """eta of the version that the period began with."""
    steps: F64
    """e."""
    batch_size: F64
    """B."""
    samples: F64
    """D."""
    dissimilarity: F64
    """delta, bound of ``||grad F - grad F_i||^2`` (10)."""
    data_variance: F64
    """S~, variance of the local data set."""
    idle_drift: F64
    """``sum_t y_ID(t) Delta_ID(t)`` over the period (16)."""
    active_drift: F64
    """``sum_t y_AC(t) Delta_AC(t)`` over the period (17)."""

    def __post_init__(self) -> None:
        """Refuse what is no record of periods; ValueError says why."""
        lengths = {len(getattr(self, name)) for name in self.__slots__}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"periods need one entry per aggregation, at least one; got {lengths}")
        if np.any(self.batch_size < 1) or np.any(self.batch_size > self.samples):
            raise ValueError("a batch holds at least one sample and at most all of them")
        if np.any(self.learning_rate <= 0) or np.any(self.steps < 1):
            raise ValueError("learning rates must be positive and steps at least 1")


@dataclass(frozen=True, slots=True)
class TaskConstants:
    """What the bound assumes about a task."""

    smoothness: float
    """beta (8)."""
    variability: float
    """Theta, the largest of all devices (9)."""
    proximal: float
    """rho of the local loss (4)."""
    gradient_sq: float
    """V1, bound of ``||grad F_i(w, d)||^2``."""
    regularised_gradient_sq: float
    """V2, the same with the proximal term."""
    mixing_min: float
    """alpha. The theorem has one for all aggregations; if it varies with staleness, the least
    goes into (a) and the largest into (e)."""
    mixing_max: float
    staleness: int
    """K."""

    def __post_init__(self) -> None:
        """Refuse what no task has; ValueError says why."""
        if not 0 < self.mixing_min <= self.mixing_max <= 1:
            raise ValueError(
                f"mixing weights must be in (0, 1] and in order; got {self.mixing_min} and "
                f"{self.mixing_max}"
            )
        sizes = (self.smoothness, self.variability, self.proximal, self.gradient_sq)
        if min(*sizes, self.regularised_gradient_sq, self.staleness) < 0:
            raise ValueError("constants of the bound cannot be negative")

    @property
    def coupling(self) -> float:
        """Return ``K alpha``; from 1 on, term (e) explodes."""
        return self.staleness * self.mixing_max


@dataclass(frozen=True, slots=True)
class BoundTerms:
    """The six terms of (19) in its order; together they bound the cumulative average gradient."""

    initial_error: float
    """(a)."""
    dissimilarity: float
    """(b)."""
    minibatch_noise: float
    """(c)."""
    local_drift: float
    """(d): local models that leave the version they began with."""
    staleness: float
    """(e); infinite where a number cannot hold it."""
    concept_drift: float
    """(f)."""

    @property
    def each(self) -> tuple[float, float, float, float, float, float]:
        """Return (a) to (f)."""
        return (
            self.initial_error,
            self.dissimilarity,
            self.minibatch_noise,
            self.local_drift,
            self.staleness,
            self.concept_drift,
        )

    @property
    def total(self) -> float:
        """Return the bound."""
        return sum(self.each)


def sampling_noise(*, batch_size: F64, samples: F64, variability: float, data_variance: F64) -> F64:
    """Return ``2 (1 - B/D) (D - 1) Theta^2 S~ / (B D)``, half of what (c) has per step without beta.

    It bounds the variance of a gradient over B of D samples drawn without replacement: ``(1 - B/D)
    S^2 / B`` for gradients of variance S^2, which the data's spread bounds by ``2 (D-1)/D Theta^2
    S~`` (S. Lohr, "Sampling: design and analysis"; appendix A of the paper).
    """
    of_gradients = 2 * (samples - 1) / samples * variability**2 * data_variance
    noise: F64 = (1 - batch_size / samples) * of_gradients / batch_size
    return noise


def period_terms(periods: CompletedPeriods, task: TaskConstants) -> F64:
    """Return what each period adds to (b), (c), (d) and (f), without the prefix ``1/(G eta_min)``.

    Returns:
        shape ``(4, aggregations)``.

    """
    eta, steps = periods.learning_rate, periods.steps
    noise = sampling_noise(
        batch_size=periods.batch_size,
        samples=periods.samples,
        variability=task.variability,
        data_variance=periods.data_variance,
    )
    wander = task.proximal / 2 * eta * (steps - 1) + steps
    return np.stack(
        [
            eta * steps * periods.dissimilarity,
            2 * task.smoothness * eta**2 * steps * noise,
            2 * task.proximal * eta**2 * steps * task.regularised_gradient_sq * wander,
            2 * (periods.active_drift + periods.idle_drift),
        ]
    )


def bound_terms(
    periods: CompletedPeriods, task: TaskConstants, *, loss_first: float, loss_last: float
) -> BoundTerms:
    """Return the terms of (19).

    Args:
        periods: behind the aggregations.
        task: the constants.
        loss_first: global loss of version 0.
        loss_last: global loss of the last version.

    """
    aggregations, slowest = len(periods.steps), float(periods.learning_rate.min())
    scale = 1 / (aggregations * slowest)
    b, c, d, f = scale * period_terms(periods, task).sum(axis=1)
    return BoundTerms(
        initial_error=2 * scale / task.mixing_min * (loss_first - loss_last),
        dissimilarity=float(b),
        minibatch_noise=float(c),
        local_drift=float(d),
        staleness=scale * float(staleness_terms(periods, task).sum()),
        concept_drift=float(f),
    )


def staleness_terms(periods: CompletedPeriods, task: TaskConstants) -> F64:
    """Return what each aggregation adds to (e), without prefix; shape ``(aggregations,)``.

    ``((K alpha)^g' - 1) / (K alpha - 1)`` is ``1 + K alpha + ... + (K alpha)^(g'-1)``, which has no
    gap at ``K alpha = 1``.
    """
    aggregations = len(periods.steps)
    with np.errstate(over="ignore"):
        powers = task.coupling ** np.arange(aggregations - 1, dtype=np.float64)
        sums = np.concatenate([[0.0], np.cumsum(powers)])
        reach = (float(periods.steps.max()) * float(periods.learning_rate.max())) ** 2
        first = 4 * task.coupling * reach * task.gradient_sq * task.regularised_gradient_sq * sums
        second = (task.smoothness + 2) * task.coupling * reach * task.regularised_gradient_sq * sums
        terms: F64 = np.sqrt(first) + second
    return terms
