"""What a run has shown of tasks and devices, as both levels of the scheduler are asked about it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fadelab_proto.local_period import LocalPlan
from fadelab_server.aggregation.dma_fl import Arrival
from fadelab_server.periods.figures import Figures
from fadelab_server.scheduler.bound import BoundTerms, bound_terms
from fadelab_server.scheduler.estimates import (
    DriftRates,
    Suprema,
    dissimilarity,
    drift_sums,
    mean_local_gradient,
    with_gradient,
)
from fadelab_server.scheduler.knowledge import (
    CompletedPeriod,
    LocalKnowledge,
    completed_periods,
    task_constants,
)
from fadelab_server.scheduler.tensors import F64


@dataclass(slots=True)
class Transfers:
    """What the last transfers of one device and task took."""

    download_s: float = 0.0
    download_j: float = 0.0
    upload_s: float = 0.0
    upload_j: float = 0.0


@dataclass(slots=True)
class LocalView:
    """What one device has reported of one task."""

    figures: Figures
    drift: DriftRates
    dissimilarity: float = 0.0

    @property
    def local(self) -> LocalKnowledge:
        """Return it as the scheduler takes it."""
        return LocalKnowledge(
            samples=self.figures.samples,
            dissimilarity=self.dissimilarity,
            data_variance=self.figures.report.data_variance,
            drift=self.drift,
        )


@dataclass(slots=True, eq=False)
class _Gradients:
    """The last mean gradient of each device, with their inner products."""

    rows: F64
    products: F64
    seen: set[int] = field(default_factory=set)

    def take(self, device: int, gradient: F64) -> dict[int, float]:
        """Return the dissimilarity of all devices seen, after a device's new gradient."""
        self.rows[device] = gradient
        self.products = with_gradient(self.products, self.rows, device)
        self.seen.add(device)
        among = sorted(self.seen)
        return dict(
            zip(among, dissimilarity(self.products[np.ix_(among, among)]).tolist(), strict=True)
        )


class TaskKnowledge:
    """What is known of one task.

    Args:
        devices: I.
        dimension: parameters of its model.
        learning_rate: eta.
        proximal: rho.

    """

    def __init__(
        self, *, devices: int, dimension: int, learning_rate: float, proximal: float
    ) -> None:
        self.seen = Suprema()
        self.views: dict[int, LocalView] = {}
        """By device."""
        self.completed: list[CompletedPeriod] = []
        self.mixing: list[float] = []
        self.staleness = 0
        """The largest so far."""
        self._devices = devices
        self._learning_rate = learning_rate
        self._proximal = proximal
        self._first_losses: dict[int, float] = {}
        # Rows of devices that never report cost no memory: the kernel has nothing behind them.
        self._gradients = _Gradients(np.zeros((devices, dimension)), np.zeros((devices, devices)))

    def take_figures(self, device: int, figures: Figures) -> None:
        """Take a device's report on a period."""
        self.seen = self.seen.with_report(figures.report)
        view = self.views.get(device)
        drift = DriftRates() if view is None else view.drift
        for stretch in figures.drift:
            drift = drift.with_report(stretch, devices=self._devices)
        unlike = 0.0 if view is None else view.dissimilarity
        self.views[device] = LocalView(figures, drift, unlike)
        self._first_losses.setdefault(device, figures.loss)

    def complete(self, device: int, plan: LocalPlan, arrival: Arrival, staleness: int) -> None:
        """Take the update that a device's period has ended with."""
        gradient = mean_local_gradient(
            arrival.delta.astype(np.float64), learning_rate=self._learning_rate, steps=plan.steps
        )
        for other, unlike in self._gradients.take(device, gradient).items():
            self.views[other].dissimilarity = unlike
        view = self.views[device]
        idle, active = drift_sums(view.figures.drift, devices=self._devices)
        self.completed.append(
            CompletedPeriod(
                learning_rate=self._learning_rate,
                plan=plan,
                samples=view.figures.samples,
                dissimilarity=view.dissimilarity,
                data_variance=view.figures.report.data_variance,
                idle_drift=idle,
                active_drift=active,
            )
        )
        self.mixing.append(arrival.mixing)
        self.staleness = max(self.staleness, staleness)

    @property
    def loss(self) -> float:
        """Return the mean of the local losses that devices reported last; 0 before any report."""
        return _mean([view.figures.loss for view in self.views.values()])

    def bound(self) -> BoundTerms:
        """Return the terms of (19) for the periods completed so far, at least one.

        Global losses are means of the devices' own, of the versions that they received first and
        last.
        """
        return bound_terms(
            completed_periods(self.completed),
            task_constants(
                self.seen, proximal=self._proximal, mixing=self.mixing, staleness=self.staleness
            ),
            loss_first=_mean(list(self._first_losses.values())),
            loss_last=self.loss,
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
