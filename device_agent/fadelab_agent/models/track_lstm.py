"""A recurrent network that predicts tracks."""

import torch
from torch import nn

from fadelab_agent.models.track_motion import corrected
from fadelab_agent.tasks.tracks import INTERVAL_S, last_velocity


class TrackLstm(nn.Module):
    """An LSTM over what is observed, and one linear layer from its last state to corrections.

    It sees the velocity of each interval less the last velocity, in m/s; what it answers is added
    to the prediction at constant velocity. Argoverse's baseline encodes differences of positions
    by an LSTM as well (Chang et al., CVPR 2019); predicting all positions at once instead of one
    after another keeps training short. With 64 units it has 21 308 parameters.

    Args:
        outputs: coordinates to predict.
        hidden: units of the LSTM.

    """

    def __init__(self, outputs: int, *, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(2, hidden, batch_first=True)
        self.answer = nn.Linear(hidden, outputs)

    def forward(self, observed: torch.Tensor) -> torch.Tensor:
        """Return coordinates in metres, shape ``(batch, outputs)``."""
        velocities = (observed.diff(dim=1) - last_velocity(observed)) / INTERVAL_S
        states, _ = self.encoder(velocities)
        return corrected(observed, self.answer(states[:, -1]))
