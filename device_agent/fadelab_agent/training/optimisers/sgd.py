"""Stochastic gradient descent with heavy-ball momentum (Polyak, 1964)."""

import torch

from fadelab_agent.config import TrainingConfig


class Sgd:
    """``v <- momentum v + g ; w <- w - learning_rate v``, with v = 0 at the start."""

    def __init__(self, config: TrainingConfig) -> None:
        self._learning_rate = config.learning_rate
        self._momentum = config.momentum
        self._velocity: torch.Tensor | None = None

    def step(self, vector: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take one step."""
        if self._momentum == 0.0:
            direction = gradient
        elif self._velocity is None:
            direction = self._velocity = gradient.clone()
        else:
            direction = self._velocity.mul_(self._momentum).add_(gradient)
        vector.add_(direction, alpha=-self._learning_rate)
