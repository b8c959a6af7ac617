"""Optimisers act on the flat parameter vector; one file each."""

from collections.abc import Callable

from fadelab_agent.config import TrainingConfig
from fadelab_agent.training.optimisers.base import Optimiser
from fadelab_agent.training.optimisers.sgd import Sgd

__all__ = ["OPTIMISERS", "Optimiser"]

OPTIMISERS: dict[str, Callable[[TrainingConfig], Optimiser]] = {"sgd": Sgd}
