"""Predictions of tracks as corrections of motion at constant velocity."""

import torch

from fadelab_agent.tasks.tracks import coast

# Vehicles that brake or turn end up some tens of metres from where they would have gone straight
# on; in this unit a model's answers are of order one, as its initial weights suppose.
_UNIT_M = 10.0


def corrected(observed: torch.Tensor, correction: torch.Tensor) -> torch.Tensor:
    """Add a correction to the prediction at constant velocity.

    Args:
        observed: positions in metres, shape ``(batch, 20, 2)``.
        correction: in tens of metres, shape ``(batch, 60)``.

    Returns:
        coordinates of the 30 positions that follow, in metres, shape ``(batch, 60)``.

    """
    return coast(observed).flatten(1) + _UNIT_M * correction
