"""Models: one file per family; :func:`build_model` knows them all."""

from typing import assert_never

import torch
from torch import nn

from fadelab_agent.config import (
    Cnn462kModel,
    Cnn466kModel,
    LogisticModel,
    MlpModel,
    ModelConfig,
)
from fadelab_agent.models.cnn_462k import cnn_462k
from fadelab_agent.models.cnn_466k import cnn_466k
from fadelab_agent.models.logistic import logistic
from fadelab_agent.models.mlp import mlp
from fadelab_agent.tasks.base import TaskData
from fadelab_proto.seeds import Stream, generator

__all__ = ["build_model", "model_for"]


def build_model(config: ModelConfig, data: TaskData, seed: int) -> nn.Module:
    """Build the model for a task with initial weights that depend on ``seed`` alone.

    The module maps float32 pictures of shape ``(batch, *data.input_shape)`` to scores of shape
    ``(batch, data.classes)``.

    Raises:
        ValueError: if the task's pictures are too small for the model.

    """
    weights_seed = int(generator(seed, Stream.MODEL).integers(2**63))
    # torch initialises layers from its global generator: leave that one as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        return model_for(config, data.input_shape, data.classes)


def model_for(config: ModelConfig, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build the model for pictures of ``shape`` (channels, height, width).

    Raises:
        ValueError: if they are too small for the model.

    """
    match config:
        case LogisticModel():
            return logistic(shape, classes)
        case MlpModel():
            return mlp(shape, classes, hidden=config.hidden)
        case Cnn462kModel():
            return cnn_462k(shape, classes)
        case Cnn466kModel():
            return cnn_466k(shape, classes)
        case _:
            assert_never(config)
