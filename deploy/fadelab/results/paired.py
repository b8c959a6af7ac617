"""Means over repeated runs and differences between paired ones, with confidence intervals.

Runs with the same seed share data split, initial model, mobility and channel, so much of what
varies from seed to seed varies alike in all variants. It cancels in the difference of two runs of
one seed, whose interval is therefore the narrower one (Law, Simulation Modeling and Analysis,
sections 10.2.1, the paired-t interval, and 11.2, common random numbers).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A sample's mean and the interval that holds the true mean with the given confidence."""

    n: int
    mean: float
    std: float | None
    """Standard deviation of the sample (n - 1); None of a single value."""
    half_width: float | None
    """Of the interval around the mean; None of a single value, which tells nothing of its own."""

    @property
    def low(self) -> float | None:
        """The interval's lower end."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """The interval's upper end."""
        return None if self.half_width is None else self.mean + self.half_width


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The mean of the differences of paired runs, and what could not be paired."""

    estimate: Estimate
    pairs: tuple[int, ...]
    """Seeds of which both runs have a value."""
    unpaired: tuple[int, ...]
    """Seeds of which only one of the two has."""
    baseline_mean: float
    """Mean of the baseline's values over the pairs."""

    @property
    def relative(self) -> float | None:
        """The mean difference over the baseline's mean; None where that is 0."""
        return self.estimate.mean / self.baseline_mean if self.baseline_mean else None


def estimate_mean(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of independent values with Student's t interval.

    The half width is ``t(n - 1, (1 + confidence) / 2) * s / sqrt(n)``. It is exact for normally
    distributed values and a good approximation for means of others.

    Args:
        values: at least one, all finite.
        confidence: between 0 and 1.

    Raises:
        ValueError: if there is no value, one is not finite, or the confidence is impossible.

    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence:g}; it must lie between 0 and 1")
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError("a mean needs at least one value, and all of them finite")
    n, mean = sample.size, float(sample.mean())
    if n == 1:
        return Estimate(1, mean, None, None)
    # Of equal values the mean may be off by a rounding error, which is no spread.
    std = 0.0 if np.ptp(sample) == 0 else float(sample.std(ddof=1))
    quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    return Estimate(n, mean, std, quantile * std / math.sqrt(n))


def paired_difference(
    values: Mapping[int, float],
    baseline: Mapping[int, float],
    confidence: float = CONFIDENCE,
) -> PairedDifference | None:
    """Return by how much a variant differs from the baseline, over the seeds that both have.

    Args:
        values: the variant's values by seed.
        baseline: the baseline's values by seed.
        confidence: of the interval.

    Returns:
        None if no seed has both.

    Raises:
        ValueError: as :func:`estimate_mean`.

    """
    pairs = tuple(sorted(values.keys() & baseline.keys()))
    if not pairs:
        return None
    differences = [values[seed] - baseline[seed] for seed in pairs]
    return PairedDifference(
        estimate_mean(differences, confidence),
        pairs,
        tuple(sorted(values.keys() ^ baseline.keys())),
        float(np.mean([baseline[seed] for seed in pairs])),
    )
