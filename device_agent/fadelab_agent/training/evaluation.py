"""How good a model is on the test samples of its task."""

from typing import NamedTuple

import torch

from fadelab_agent.tasks import TaskData
from fadelab_agent.training.flat import FlatModel

# Bounds the memory of a convolution's intermediate pictures to some tens of megabytes.
_BATCH = 256


class Score(NamedTuple):
    """Mean loss and the task's metric (see :mod:`fadelab_agent.metric`)."""

    loss: float
    metric: float


def evaluate(model: FlatModel, data: TaskData) -> Score:
    """Return loss and metric of the model's present parameters on all test samples."""
    total = len(data.test_y)
    loss_sum, quality_sum = 0.0, 0.0
    with torch.inference_mode():
        for first in range(0, total, _BATCH):
            answers = data.test_y[first : first + _BATCH]
            outputs = model(data.inputs(data.test_x[first : first + _BATCH]))
            loss_sum += float(data.loss(outputs, answers)) * len(answers)
            quality_sum += float(data.quality(outputs, answers).sum())
    return Score(loss_sum / total, quality_sum / total)
