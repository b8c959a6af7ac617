"""What the bound assumes, estimated from what devices report: a few numbers for each local period.

Bounds of DMA-FL (arXiv 2305.13503, assumptions 2 to 5, definition 2) are suprema; an estimate is the
largest that was seen, and so a lower limit of the true one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from fadelab_proto.period_report import DriftReport, PeriodReport
from fadelab_server.scheduler.tensors import F64


@dataclass(frozen=True, slots=True)
class Suprema:
    """The largest of each quantity so far."""

    variability: float = 0.0
    gradient_sq: float = 0.0
    regularised_gradient_sq: float = 0.0
    smoothness: float = 0.0
    reports: int = 0

    def with_report(self, report: PeriodReport) -> "Suprema":
        """Return the suprema with one more report."""
        return replace(
            self,
            variability=max(self.variability, report.variability),
            gradient_sq=max(self.gradient_sq, report.gradient_sq),
            regularised_gradient_sq=max(
                self.regularised_gradient_sq, report.regularised_gradient_sq
            ),
            smoothness=max(self.smoothness, report.smoothness),
            reports=self.reports + 1,
        )


def mean_local_gradient(delta: F64, *, learning_rate: float, steps: int) -> F64:
    """Return the mean of the gradients that local training followed: ``-delta / (eta e)``.

    Args:
        delta: local result minus the version that training began with.
        learning_rate: eta.
        steps: e.

    """
    gradient: F64 = -np.asarray(delta, dtype=np.float64) / (learning_rate * steps)
    return gradient


def dissimilarity(inner_products: F64) -> F64:
    """Return ``||grad F - grad F_i||^2`` of every device, with ``grad F = sum_i grad F_i / I`` (10).

    The inner products of the devices' gradients are all that is needed, and only one row of them
    changes when a device's next update arrives (:func:`with_gradient`).

    Args:
        inner_products: ``<grad F_i, grad F_k>``, shape ``(devices, devices)``, of gradients at
            one version, or at versions that are near each other.

    Returns:
        shape ``(devices,)``.

    """
    means = inner_products.mean(axis=1)
    gaps: F64 = np.diag(inner_products) - 2 * means + means.mean()
    # Rounding of nearly equal gradients must not give a negative square.
    return np.maximum(gaps, 0.0)


def with_gradient(inner_products: F64, gradients: F64, device: int) -> F64:
    """Return the inner products after one device's gradient has changed.

    Args:
        inner_products: those before, shape ``(devices, devices)``.
        gradients: of all devices, the changed one included, shape ``(devices, dimension)``.
        device: whose is new.

    """
    changed = inner_products.copy()
    row = gradients @ gradients[device]
    changed[device, :] = row
    changed[:, device] = row
    return changed


def drift_per_s(report: DriftReport, *, devices: int) -> float:
    """Return ``(F_i(w, D(t)) - F_i(w, D(t - dt))) / (I dt)``, the drift of (11) or (12).

    Negative where the new data suit the model better. It is the mean over the stretch; the paper's
    stretches are seconds.

    Args:
        report: of the stretch.
        devices: I, by which the global loss is divided.

    """
    return (report.loss_after - report.loss_before) / (devices * report.elapsed_s)


def drift_sums(reports: Iterable[DriftReport], *, devices: int) -> tuple[float, float]:
    """Return ``sum_t y_ID Delta_ID`` and ``sum_t y_AC Delta_AC`` (16) (17) of one local period.

    The paper's drifts are upper bounds, and so none is below 0.

    Args:
        reports: of the period's stretches, in each of which the device only computed or never did.
        devices: I.

    """
    sums = {False: 0.0, True: 0.0}
    for report in reports:
        sums[report.active] += max(0.0, drift_per_s(report, devices=devices)) * report.elapsed_s
    return sums[False], sums[True]


@dataclass(frozen=True, slots=True)
class DriftRates:
    """Drift of one device and task, in loss per second: the largest of each stretch, forgotten slowly.

    The bounds of (11) and (12) belong to a moment; what is expected of the next local period is the
    last measurement, or what is left of larger ones before it.
    """

    idle_per_s: float = 0.0
    active_per_s: float = 0.0

    def with_report(self, report: DriftReport, *, devices: int, keep: float = 0.5) -> "DriftRates":
        """Return the rates after a measurement; ``keep`` of the old one remains at least."""
        if not 0 <= keep < 1:
            raise ValueError(f"keep must be in [0, 1); got {keep}")
        rate_per_s = drift_per_s(report, devices=devices)
        if report.active:
            return replace(self, active_per_s=max(rate_per_s, keep * self.active_per_s, 0.0))
        return replace(self, idle_per_s=max(rate_per_s, keep * self.idle_per_s, 0.0))
