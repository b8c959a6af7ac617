"""Adam (Kingma and Ba, arXiv 1412.6980)."""

import torch

from fadelab_agent.config import TrainingConfig
from fadelab_agent.training.optimisers.base import decayed_squares


class Adam:
    """``w <- w - learning_rate m / (sqrt(v) + eps)``, m and v corrected for their start (algorithm 1).

    m and v are decaying means of g and of its square; ``momentum`` is beta 1, 0.9 if it is 0.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._learning_rate = config.learning_rate
        self._first_decay = config.momentum or 0.9
        self._decay = config.decay_or(0.999)
        self._epsilon = config.epsilon_or(1e-8)
        self._taken = 0
        self._mean: torch.Tensor | None = None
        self._squares: torch.Tensor | None = None

    def step(self, vector: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take one step."""
        if self._mean is None or self._squares is None:
            self._mean, self._squares = torch.zeros_like(vector), torch.zeros_like(vector)
        self._taken += 1
        self._mean.mul_(self._first_decay).add_(gradient, alpha=1 - self._first_decay)
        decayed_squares(self._squares, gradient, self._decay)
        scale = self._learning_rate / (1 - self._first_decay**self._taken)
        root = (self._squares / (1 - self._decay**self._taken)).sqrt_().add_(self._epsilon)
        vector.addcdiv_(self._mean, root, value=-scale)
