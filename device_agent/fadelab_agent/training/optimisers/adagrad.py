"""Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011), with a diagonal matrix."""

import torch

from fadelab_agent.config import TrainingConfig


class Adagrad:
    """``w <- w - learning_rate g / (sqrt(G) + eps)``; G is the sum of squares so far."""

    def __init__(self, config: TrainingConfig) -> None:
        self._learning_rate = config.learning_rate
        self._epsilon = config.epsilon_or(1e-10)
        self._squares: torch.Tensor | None = None

    def step(self, vector: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take one step."""
        if self._squares is None:
            self._squares = torch.zeros_like(vector)
        self._squares.addcmul_(gradient, gradient)
        root = self._squares.sqrt().add_(self._epsilon)
        vector.addcdiv_(gradient, root, value=-self._learning_rate)
