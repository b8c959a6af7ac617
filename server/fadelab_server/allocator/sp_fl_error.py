"""The error of an aggregate of signs and moduli of which some were lost.

Device k's gradient is ``s_k v_k`` (signs times moduli). Its signs arrive with probability q_k,
given these its moduli with p_k; lost moduli are replaced by a compensatory vector vbar, lost signs
by nothing. The server adds up ``x_k / (K q_k)``. With ``V = ||v||^2``, ``Vb = ||vbar||^2``, ``I =
<v, vbar>``, sigma^2 the quantiser's variance and ``u_k = s_k vbar``::

    bias = ||(1/K) sum_k (1 - p_k)(u_k - g_k)||^2  <=  kappa (1/K) sum_k (1 - p_k)^2 (V + Vb - 2 I)
    var  = (1/K^2) sum_k { [p (V + sigma^2) + (1 - p) Vb] / q
                           - [p^2 V + (1 - p)^2 Vb + 2 p (1 - p) I] }

The variance is exact; ``kappa = 1`` makes the bias a bound (Jensen), ``1/K`` its value for
compensation errors that are orthogonal to each other. The error enters the one-step bound of
gradient descent as ``bias / 2 + L eta var / 2`` (after arXiv 2603.10763, reconstructed).
"""

from dataclasses import dataclass

import numpy as np

from fadelab_server.allocator.uplink import F64


@dataclass(frozen=True, slots=True, eq=False)
class GradientStatistics:
    """What devices tell of their gradients before they send them; arrays over devices."""

    modulus_energy: F64
    """``V_k``: the squared norm of the gradient."""
    compensation_energy: F64
    """``Vb_k``: the squared norm of the vector that replaces lost moduli."""
    overlap: F64
    """``I_k``: inner product of the moduli and that vector."""
    quantiser_variance: F64
    """``sigma_k^2``: mean squared error of the quantised moduli."""
    kappa: float
    """How compensation errors add up, in (0, 1]; see above."""
    step: float = 1.0
    """``L eta``: what variance counts beside bias, in (0, 1]."""

    def __post_init__(self) -> None:
        """Refuse what no gradients have; ValueError says why."""
        if not (0 < self.kappa <= 1 and 0 < self.step <= 1):
            raise ValueError(
                f"kappa and step must be positive and at most 1; got {self.kappa} and {self.step}"
            )
        limit = np.sqrt(self.modulus_energy * self.compensation_energy)
        if np.any(np.abs(self.overlap) > limit * (1 + 1e-6)):
            raise ValueError("an overlap is larger than the norms allow")

    @property
    def residue(self) -> F64:
        """``V + Vb - 2 I``: the squared distance of the gradient and its substitute."""
        residue: F64 = self.modulus_energy + self.compensation_energy - 2 * self.overlap
        return np.maximum(residue, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorParts:
    """Every device's part in ``bias / 2 + L eta var / 2``, and its derivatives."""

    value: F64
    by_inverse: F64
    """By ``1 / q``."""
    by_modulus: F64
    """By p, the probability of the moduli given the signs."""


def bias_bound(statistics: GradientStatistics, modulus: F64) -> float:
    """Return the bias with the statistics' kappa, from ``P(moduli | signs)``."""
    return float(statistics.kappa * np.mean((1 - modulus) ** 2 * statistics.residue))


def variance(statistics: GradientStatistics, sign: F64, modulus: F64) -> float:
    """Return the exact variance, from ``P(signs)`` and ``P(moduli | signs)``."""
    return float((_second(statistics, modulus) / sign - _mean(statistics, modulus)).sum()) / (
        len(modulus) ** 2
    )


def error_parts(statistics: GradientStatistics, inverse: F64, modulus: F64) -> ErrorParts:
    """Return the objective, from ``1 / P(signs)`` and ``P(moduli | signs)``.

    Arrays may have more leading dimensions, for several settings at once.
    """
    devices = modulus.shape[-1]
    for_bias = statistics.kappa * statistics.residue / (2 * devices)
    for_variance = statistics.step / (2 * devices**2)
    energy, substitute = statistics.modulus_energy, statistics.compensation_energy
    second = _second(statistics, modulus)
    per_modulus = energy + statistics.quantiser_variance - substitute
    mean_slope = 2 * (
        modulus * energy - (1 - modulus) * substitute + (1 - 2 * modulus) * statistics.overlap
    )
    return ErrorParts(
        for_bias * (1 - modulus) ** 2
        + for_variance * (second * inverse - _mean(statistics, modulus)),
        for_variance * second,
        -2 * for_bias * (1 - modulus) + for_variance * (per_modulus * inverse - mean_slope),
    )


def _second(statistics: GradientStatistics, modulus: F64) -> F64:
    """Return the mean square of what counts for a device whose signs arrived."""
    result: F64 = (
        modulus * (statistics.modulus_energy + statistics.quantiser_variance)
        + (1 - modulus) * statistics.compensation_energy
    )
    return result


def _mean(statistics: GradientStatistics, modulus: F64) -> F64:
    """Return the squared mean of what counts for a device."""
    lost = 1 - modulus
    result: F64 = (
        modulus**2 * statistics.modulus_energy
        + lost**2 * statistics.compensation_energy
        + 2 * modulus * lost * statistics.overlap
    )
    return result
