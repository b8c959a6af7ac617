"""How good a model is on the test samples of its task."""

from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from fadelab_agent.tasks import TaskData
from fadelab_agent.training.flat import FlatModel

# Bounds the memory of a convolution's intermediate pictures to some tens of megabytes.
_BATCH = 256


class Score(NamedTuple):
    """Mean cross-entropy and the task's metric (accuracy: the share of right answers, 0..1)."""

    loss: float
    metric: float


def evaluate(model: FlatModel, data: TaskData) -> Score:
    """Return loss and accuracy of the model's present parameters on all test samples."""
    total = len(data.test_y)
    loss_sum, right = 0.0, 0
    with torch.inference_mode():
        for first in range(0, total, _BATCH):
            answers = data.test_y[first : first + _BATCH]
            scores = model(data.inputs(data.test_x[first : first + _BATCH]))
            loss_sum += float(cross_entropy(scores, answers, reduction="sum"))
            right += int((scores.argmax(dim=1) == answers).sum())
    return Score(loss_sum / total, right / total)
