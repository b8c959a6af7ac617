"""What an optimiser is."""

from typing import Protocol

import torch


class Optimiser(Protocol):
    """Moves a flat parameter vector against a flat gradient; holds its own state vectors."""

    def step(self, vector: torch.Tensor, gradient: torch.Tensor) -> None:
        """Change ``vector`` in place; both are float32 of the same shape ``(dimension,)``."""
        ...
