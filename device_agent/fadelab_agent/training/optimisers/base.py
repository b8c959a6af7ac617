"""What an optimiser is."""

from typing import Protocol

import torch


class Optimiser(Protocol):
    """Moves a flat parameter vector against a flat gradient; holds its own state vectors."""

    def step(self, vector: torch.Tensor, gradient: torch.Tensor) -> None:
        """Change ``vector`` in place; both are float32 of the same shape ``(dimension,)``."""
        ...


def decayed_squares(mean: torch.Tensor, values: torch.Tensor, decay: float) -> None:
    """Move a decaying mean of squares on, in place: ``mean <- decay mean + (1 - decay) values^2``."""
    mean.mul_(decay).addcmul_(values, values, value=1 - decay)
