"""Optimisers act on the flat parameter vector; one file each."""

from collections.abc import Callable

from fadelab_agent.config import OptimiserName, TrainingConfig
from fadelab_agent.training.optimisers.adadelta import AdaDelta
from fadelab_agent.training.optimisers.adagrad import Adagrad
from fadelab_agent.training.optimisers.adam import Adam
from fadelab_agent.training.optimisers.base import Optimiser
from fadelab_agent.training.optimisers.rmsprop import RmsProp
from fadelab_agent.training.optimisers.sgd import Sgd

__all__ = ["OPTIMISERS", "Optimiser"]

OPTIMISERS: dict[OptimiserName, Callable[[TrainingConfig], Optimiser]] = {
    "sgd": Sgd,
    "adadelta": AdaDelta,
    "adam": Adam,
    "rmsprop": RmsProp,
    "adagrad": Adagrad,
}
