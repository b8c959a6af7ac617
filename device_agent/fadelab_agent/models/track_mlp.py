"""A perceptron that predicts tracks."""

import torch
from torch import nn

from fadelab_agent.models.track_motion import corrected
from fadelab_agent.tasks.tracks import last_velocity


class TrackMlp(nn.Module):
    """Linear - ReLU - linear - ReLU - linear, from deviations to corrections.

    It sees how far each observed position lies from where the vehicle would have been at its last
    velocity, and that velocity; what it answers is added to the prediction at constant velocity.
    So inputs and answers are of some metres, whatever the speed. With 128 hidden units it has
    29 756 parameters.

    Args:
        shape: (observed positions, 2).
        outputs: coordinates to predict.
        hidden: units of each hidden layer.

    """

    def __init__(self, shape: tuple[int, ...], outputs: int, *, hidden: int) -> None:
        super().__init__()
        positions, coordinates = shape
        self._back = torch.arange(1.0 - positions, 1.0).view(1, positions, 1)
        self.layers = nn.Sequential(
            nn.Linear((positions + 1) * coordinates, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )

    def forward(self, observed: torch.Tensor) -> torch.Tensor:
        """Return coordinates in metres, shape ``(batch, outputs)``."""
        velocity = last_velocity(observed)
        deviation = observed - velocity * self._back
        correction = self.layers(torch.cat([deviation, velocity], dim=1).flatten(1))
        return corrected(observed, correction)
