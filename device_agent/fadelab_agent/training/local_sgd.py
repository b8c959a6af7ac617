"""Local training: what a device does between a download and an upload."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fadelab_agent.config import TrainingConfig
from fadelab_agent.partition import Indices
from fadelab_agent.tasks import TaskData
from fadelab_agent.training.flat import F32, FlatModel
from fadelab_agent.training.optimisers import OPTIMISERS, Optimiser
from fadelab_proto.seeds import Stream, generator


class TrainingDiverged(ArithmeticError):  # noqa: N818 - reads as the sentence it is
    """The parameters left the finite numbers; the message says what to change."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalResult:
    """What local training produced.

    Attributes:
        delta: parameters at the end minus at the start, float32 of shape ``(dimension,)``.
        steps: optimiser steps taken.
        samples: samples processed, ``steps`` times the batch size.
        loss: mean training loss over the steps, without proximal term and weight decay.

    """

    delta: F32
    steps: int
    samples: int
    loss: float


def train_locally(
    model: FlatModel,
    data: TaskData,
    indices: Indices,
    config: TrainingConfig,
    *,
    seed: int,
    device: int,
    update: int,
    optimiser: Optimiser | None = None,
) -> LocalResult:
    """Train from the model's present parameters on the samples of one device.

    Minimises the task's loss + proximal/2 ||w - w0||^2 + weight_decay/2 ||w||^2 (DMA-FL equations
    3 and 4), w0 being the parameters at the start. The same seed, device and update number always
    draw the same batches.

    Args:
        model: holds the start, and afterwards the end.
        data: the task.
        indices: the device's training samples, at least one.
        config: length and step size.
        seed: the experiment's seed.
        device: the device's number.
        update: number of the update on this device, from 0.
        optimiser: goes on with what it knows; a new one when left out.

    Raises:
        TrainingDiverged: if parameters are no longer finite; the model then holds them.

    """
    start = model.parameters.clone()
    optimiser = optimiser or OPTIMISERS[config.optimiser](config)
    batch_size = config.batch_for(len(indices))
    steps = config.steps_for(len(indices), update)
    rng = generator(seed, Stream.TRAINING, device, update)
    loss_sum = torch.zeros(())
    for chosen in itertools.islice(_batches(rng, len(indices), batch_size), steps):
        rows = torch.from_numpy(indices[chosen])
        loss = data.loss(model(data.inputs(data.train_x[rows])), data.train_y[rows])
        model.gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        loss_sum += loss.detach()
        if config.proximal:
            model.gradient.add_(model.parameters - start, alpha=config.proximal)
        if config.weight_decay:
            model.gradient.add_(model.parameters, alpha=config.weight_decay)
        optimiser.step(model.parameters, model.gradient)
    delta: F32 = (model.parameters - start).numpy()
    if not np.isfinite(delta).all():
        raise TrainingDiverged(
            f"update {update} of device {device} diverged: lower training.learning_rate, "
            f"which is {config.learning_rate}"
        )
    return LocalResult(delta, steps, steps * batch_size, float(loss_sum) / steps)


def _batches(rng: np.random.Generator, samples: int, size: int) -> Iterator[Indices]:
    """Yield batches of exactly ``size`` positions for ever, reshuffling after each pass.

    What does not fill a batch at the end of a pass is skipped, so that every step costs the same,
    as the formulas for compute time assume; the next shuffle brings it back.
    """
    while True:
        order = rng.permutation(samples)
        for first in range(0, samples - size + 1, size):
            yield order[first : first + size]
