"""AdaDelta (Zeiler, arXiv 1212.5701): steps in the units of the parameters, without a global rate."""

import torch

from fadelab_agent.config import TrainingConfig
from fadelab_agent.training.optimisers.base import decayed_squares


class AdaDelta:
    """``dx = -sqrt(Ex + eps) / sqrt(Eg + eps) g ; w <- w + learning_rate dx`` (algorithm 1).

    Eg and Ex are decaying means of the squares of g and of dx, 0 at the start.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._learning_rate = config.learning_rate
        self._decay = config.decay_or(0.95)
        self._epsilon = config.epsilon_or(1e-6)
        self._gradients: torch.Tensor | None = None
        self._steps: torch.Tensor | None = None

    def step(self, vector: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take one step."""
        if self._gradients is None or self._steps is None:
            self._gradients, self._steps = torch.zeros_like(vector), torch.zeros_like(vector)
        decayed_squares(self._gradients, gradient, self._decay)
        ratio = (self._steps + self._epsilon) / (self._gradients + self._epsilon)
        change = ratio.sqrt_().mul_(gradient)
        decayed_squares(self._steps, change, self._decay)
        vector.add_(change, alpha=-self._learning_rate)
