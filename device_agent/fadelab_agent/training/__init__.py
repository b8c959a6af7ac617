"""Local training on a flat parameter vector, and evaluation."""

from fadelab_agent.training.evaluation import Score, evaluate
from fadelab_agent.training.flat import FlatModel, Layer
from fadelab_agent.training.local_sgd import LocalResult, TrainingDiverged, train_locally

__all__ = [
    "FlatModel",
    "Layer",
    "LocalResult",
    "Score",
    "TrainingDiverged",
    "evaluate",
    "train_locally",
]
