"""RMSProp (Tieleman and Hinton, "Lecture 6.5", Coursera, 2012)."""

import torch

from fadelab_agent.config import TrainingConfig
from fadelab_agent.training.optimisers.base import decayed_squares


class RmsProp:
    """``w <- w - learning_rate g / (sqrt(Eg) + eps)``; Eg is the decaying mean of squares."""

    def __init__(self, config: TrainingConfig) -> None:
        self._learning_rate = config.learning_rate
        self._decay = config.decay_or(0.99)
        self._epsilon = config.epsilon_or(1e-8)
        self._squares: torch.Tensor | None = None

    def step(self, vector: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take one step."""
        if self._squares is None:
            self._squares = torch.zeros_like(vector)
        decayed_squares(self._squares, gradient, self._decay)
        root = self._squares.sqrt().add_(self._epsilon)
        vector.addcdiv_(gradient, root, value=-self._learning_rate)
