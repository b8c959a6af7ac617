"""What an agent needs of a task: train from a vector, evaluate a vector."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.metric import Baseline

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of one local training."""

    delta: F32
    """Local result minus the vector that training started from; shape ``(dimension,)``."""
    steps: int
    batch_size: int
    """Samples in each step."""
    loss: float
    """Mean training loss over the steps."""


class TaskWork(Protocol):
    """One task on one device."""

    name: str
    dimension: int
    layers: tuple[int, ...]
    """Parameters of each of the model's tensors, in order; they add up to the dimension."""
    layout_hash: int
    samples: int
    """Local training samples."""

    def train(self, base: F32, update_number: int) -> Trained:
        """Train from ``base``; the same arguments give the same result."""
        ...

    def evaluate(self, vector: F32) -> tuple[float, float]:
        """Return loss and metric of ``vector`` on the held-out test set."""
        ...

    def baseline(self) -> Baseline | None:
        """Return what a rule that learns nothing achieves there, where there is a usual one."""
        ...
