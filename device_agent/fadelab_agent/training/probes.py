"""What a device measures of its own data and model, for the bound of DMA-FL (arXiv 2305.13503)."""

import itertools

import numpy as np
import torch

from fadelab_agent.drift import LocalSet, rotated
from fadelab_agent.partition import Indices
from fadelab_agent.tasks import TaskData
from fadelab_agent.training.flat import F32, FlatModel
from fadelab_proto.period_report import DriftReport, PeriodReport

_BATCH = 256
# Samples that look the same have no distance to divide by.
_SAME = 1e-6


def local_loss(model: FlatModel, data: TaskData, local: LocalSet) -> float:
    """Return the mean loss ``F_i(w, D(t))`` of the model's present parameters on a local set."""
    view, total = rotated(data, local.rotation_deg), 0.0
    with torch.inference_mode():
        for first in range(0, len(local.indices), _BATCH):
            rows = torch.from_numpy(local.indices[first : first + _BATCH])
            outputs = model(view.inputs(view.train_x[rows]))
            total += float(view.loss(outputs, view.train_y[rows])) * len(rows)
    return total / len(local.indices)


def drift_report(
    model: FlatModel,
    data: TaskData,
    before: LocalSet,
    after: LocalSet,
    *,
    elapsed_s: float,
    active: bool,
) -> DriftReport:
    """Measure what a stretch of time did to the loss of the model's present parameters: (11), (12).

    Args:
        model: of the task.
        data: the task.
        before: what the device held at the beginning of the stretch.
        after: what it holds at its end.
        elapsed_s: how long it was, in emulated seconds.
        active: whether the device computed all the time, or never.

    """
    first = local_loss(model, data, before)
    last = first if after.same_as(before) else local_loss(model, data, after)
    return DriftReport(first, last, elapsed_s, active)


def period_report(
    model: FlatModel,
    data: TaskData,
    local: LocalSet,
    *,
    begun: F32,
    ended: F32,
    proximal: float,
    samples: int,
    rng: np.random.Generator,
) -> PeriodReport:
    """Measure one local period on a few of its samples; the model's parameters stay as they are.

    Distances between samples are those of what the model is shown, since answers have none.

    Args:
        model: of the task.
        data: the task.
        local: what the device held.
        begun: parameters at the beginning of training.
        ended: those at its end.
        proximal: rho.
        samples: how many to look at, at least 2; it takes two gradients for each.
        rng: chooses them.

    """
    before = model.vector.copy()
    view = rotated(data, local.rotation_deg)
    size = min(samples, len(local.indices))
    chosen = rng.choice(local.indices, size, replace=False)
    first = _gradients(model, view, chosen, begun)
    last = _gradients(model, view, chosen, ended)
    moved = ended.astype(np.float64) - begun
    # The mean of gradients is the gradient of the mean loss.
    turned = last.mean(axis=0) - first.mean(axis=0)
    distance = float(np.linalg.norm(moved))
    regularised = (first.mean(axis=0), last.mean(axis=0) + proximal * moved)
    model.load(before)
    return PeriodReport(
        variability=_variability(view, chosen, last),
        data_variance=_variance(view, local.indices),
        gradient_sq=float(max((gradients**2).sum(axis=1).max() for gradients in (first, last))),
        regularised_gradient_sq=float(max((g**2).sum() for g in regularised)),
        smoothness=float(np.linalg.norm(turned)) / distance if distance > 0 else 0.0,
    )


def _gradients(model: FlatModel, data: TaskData, chosen: Indices, vector: F32) -> np.ndarray:
    """Return the gradient of each sample's loss, float64 of shape ``(samples, dimension)``."""
    model.load(vector)
    found = np.empty((len(chosen), model.dimension))
    for row, index in enumerate(chosen):
        one = torch.tensor([index])
        model.gradient.zero_()
        loss = data.loss(model(data.inputs(data.train_x[one])), data.train_y[one])
        loss.backward()  # type: ignore[no-untyped-call]
        found[row] = model.gradient.numpy()
    model.gradient.zero_()
    return found


def _variability(data: TaskData, chosen: Indices, gradients: np.ndarray) -> float:
    shown = data.inputs(data.train_x[torch.from_numpy(chosen)]).reshape(len(chosen), -1).numpy()
    largest = 0.0
    for one, other in itertools.combinations(range(len(chosen)), 2):
        apart = float(np.linalg.norm(shown[one] - shown[other]))
        if apart > _SAME:
            change = float(np.linalg.norm(gradients[one] - gradients[other]))
            largest = max(largest, change / apart)
    return largest


def _variance(data: TaskData, indices: Indices) -> float:
    """Return ``sum_d ||d - mean||^2 / (D - 1)``; 0 for a single sample."""
    if len(indices) == 1:
        return 0.0
    count, mean, spread = 0, torch.zeros(1, dtype=torch.float64), 0.0
    for first in range(0, len(indices), _BATCH):
        rows = torch.from_numpy(indices[first : first + _BATCH])
        shown = data.inputs(data.train_x[rows]).reshape(len(rows), -1).to(torch.float64)
        # Two sets' spreads add up, and that between their means (Chan, Golub and LeVeque, 1983).
        own = shown.mean(dim=0)
        together = count + len(rows)
        gap = float(((own - mean) ** 2).sum()) if count else 0.0
        spread += float(((shown - own) ** 2).sum()) + gap * count * len(rows) / together
        mean = (mean * count + own * len(rows)) / together
        count = together
    return spread / (count - 1)
