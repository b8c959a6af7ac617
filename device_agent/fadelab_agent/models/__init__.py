"""Models: one file per family; :func:`build_model` knows them all."""

from typing import assert_never

import torch
from torch import nn

from fadelab_agent.config import (
    Cnn6ConvModel,
    Cnn462kModel,
    Cnn466kModel,
    LogisticModel,
    MlpModel,
    ModelConfig,
    TrackLstmModel,
    TrackMlpModel,
    TrackModel,
)
from fadelab_agent.models.cnn_6conv import cnn_6conv
from fadelab_agent.models.cnn_462k import cnn_462k
from fadelab_agent.models.cnn_466k import cnn_466k
from fadelab_agent.models.logistic import logistic
from fadelab_agent.models.mlp import mlp
from fadelab_agent.models.track_lstm import TrackLstm
from fadelab_agent.models.track_mlp import TrackMlp
from fadelab_agent.tasks.base import TaskData
from fadelab_proto.seeds import Stream, generator

__all__ = ["build_model", "model_for"]


def build_model(config: ModelConfig, data: TaskData, seed: int) -> nn.Module:
    """Build the model for a task with initial weights that depend on ``seed`` alone.

    The module maps float32 inputs of shape ``(batch, *data.input_shape)`` to answers of shape
    ``(batch, data.outputs)``.

    Raises:
        ValueError: if the task's pictures are too small for the model.

    """
    weights_seed = int(generator(seed, Stream.MODEL).integers(2**63))
    # torch initialises layers from its global generator: leave that one as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        return model_for(config, data.input_shape, data.outputs)


def model_for(config: ModelConfig, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Build the model for samples of ``shape``.

    Args:
        config: which model.
        shape: (channels, height, width) of pictures, (positions, 2) of tracks.
        outputs: how many numbers the model answers for each.

    Raises:
        ValueError: if pictures are too small for the model.

    """
    match config:
        case LogisticModel():
            return logistic(shape, outputs)
        case MlpModel():
            return mlp(shape, outputs, hidden=config.hidden)
        case Cnn462kModel():
            return cnn_462k(shape, outputs)
        case Cnn466kModel():
            return cnn_466k(shape, outputs)
        case Cnn6ConvModel():
            return cnn_6conv(shape, outputs, channels=config.channels)
        case TrackMlpModel() | TrackLstmModel():
            return _track_model(config, shape, outputs)
        case _:
            assert_never(config)


def _track_model(config: TrackModel, shape: tuple[int, ...], outputs: int) -> nn.Module:
    match config:
        case TrackMlpModel():
            return TrackMlp(shape, outputs, hidden=config.hidden)
        case TrackLstmModel():
            return TrackLstm(outputs, hidden=config.hidden)
        case _:
            assert_never(config)
