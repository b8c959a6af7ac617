"""Predicting where vehicles drive: what the tasks with tracks have in common.

The setting is that of Argoverse's motion forecasting (Chang et al., "Argoverse: 3D tracking and
forecasting with rich maps", CVPR 2019): of 5 s at 10 Hz the first 2 s are observed, the rest is
predicted. Maps and other road users are left out.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import smooth_l1_loss

from fadelab_agent.metric import DISPLACEMENT, Baseline, Metric
from fadelab_agent.tasks.base import DataSetBroken, SampleLimits, TaskData, choice

OBSERVED = 20
PREDICTED = 30
POSITIONS = OBSERVED + PREDICTED
INTERVAL_S = 0.1

# Over half a second positions that are measured to some centimetres tell a velocity to some
# tenths of a metre per second, and a vehicle does not turn much.
_VELOCITY_INTERVALS = 5
# A vehicle that moved less than this has no heading that could be told from measuring errors.
_HEADING_M = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class TrackData(TaskData):
    """Tracks of vehicles, each in its own frame (:func:`vehicle_frame`), in metres.

    ``train_x`` and ``test_x`` are the observed positions, float32 of shape ``(samples, 20, 2)``;
    ``train_y`` and ``test_y`` those that follow, ``(samples, 30, 2)``. The loss is the smooth L1
    loss with its bend at 1 m, averaged over coordinates, which LaneGCN uses (Liang et al., ECCV
    2020); the metric is the average displacement error in metres.

    Attributes:
        train_groups: what partitions divide by, int64 of shape ``(samples,)``.
        group_names: the groups; their number is the number of names.

    """

    metric: ClassVar[Metric] = DISPLACEMENT

    train_groups: torch.Tensor
    group_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for samples, split in ((self.train_y, "training"), (self.test_y, "test")):
            if len(samples) == 0:
                raise DataSetBroken(f"{self.name} has no {split} tracks")

    @property
    def outputs(self) -> int:
        """Return 60: x and y of 30 positions."""
        return 2 * PREDICTED

    @property
    def groups(self) -> torch.Tensor:
        """Return the group of each training track."""
        return self.train_groups

    @property
    def group_count(self) -> int:
        """Return the number of groups."""
        return len(self.group_names)

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the observed positions as they are."""
        return x

    def loss(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return the mean smooth L1 loss over all coordinates."""
        return smooth_l1_loss(outputs, answers.flatten(1))

    def quality(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return each track's mean distance between predicted and true positions, in metres."""
        apart_m: torch.Tensor = torch.linalg.vector_norm(
            outputs.view(answers.shape) - answers, dim=2
        )
        return apart_m.mean(dim=1)

    def baseline(self) -> Baseline:
        """Return the metric of going straight on at the last observed velocity."""
        coasting = self.quality(coast(self.test_x).flatten(1), self.test_y)
        return Baseline("constant velocity", float(coasting.mean()))

    def limited(self, limits: SampleLimits) -> Self:
        """Return the task with a fixed random choice of its tracks and their groups."""
        # No super(): in a dataclass with slots it means a class that is no more.
        chosen = TaskData.limited(self, limits)
        groups = self.train_groups[choice(len(self.train_groups), limits.train)]
        return replace(chosen, train_groups=groups)


def last_velocity(observed: torch.Tensor) -> torch.Tensor:
    """Return the mean velocity over the last half second, in metres per interval of 0.1 s.

    Args:
        observed: positions, shape ``(tracks, 20, 2)``.

    Returns:
        shape ``(tracks, 1, 2)``.

    """
    moved = observed[:, -1:] - observed[:, -1 - _VELOCITY_INTERVALS : -_VELOCITY_INTERVALS]
    return moved / _VELOCITY_INTERVALS


def coast(observed: torch.Tensor) -> torch.Tensor:
    """Predict that every vehicle goes on at its last velocity.

    Args:
        observed: positions, shape ``(tracks, 20, 2)``.

    Returns:
        the 30 positions that follow, shape ``(tracks, 30, 2)``.

    """
    intervals = torch.arange(1, PREDICTED + 1, dtype=observed.dtype).view(1, -1, 1)
    return observed[:, -1:] + last_velocity(observed) * intervals


def vehicle_frame(tracks: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn tracks into the frames of their vehicles at the last observed moment.

    There the last observed position is the origin, and the x axis points along the last stretch of
    at least 2 m that was observed, towards the vehicle. A track without such a stretch keeps the
    directions of its axes.

    Args:
        tracks: positions in metres, shape ``(tracks, positions, 2)`` with at least 20 positions.

    Returns:
        the same shape, metres.

    """
    relative = tracks - tracks[:, OBSERVED - 1 : OBSERVED]
    far = np.linalg.norm(relative[:, :OBSERVED], axis=2) >= _HEADING_M
    # The last of the far positions; where there is none, argmax finds the first of equals.
    start = OBSERVED - 1 - far[:, ::-1].argmax(axis=1)
    ahead = -relative[np.arange(len(tracks)), start]
    ahead[~far.any(axis=1)] = (1.0, 0.0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    cos, sin = ahead[:, 0], ahead[:, 1]
    turn = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    turned: NDArray[np.float32] = (relative @ turn).astype(np.float32)
    return turned


def track_data(
    name: str,
    train: NDArray[np.float64],
    test: NDArray[np.float64],
    groups: NDArray[np.int64],
    group_names: tuple[str, ...],
) -> TrackData:
    """Cut tracks into what is observed and what is to be predicted, in the vehicles' frames.

    Args:
        name: the task.
        train: positions in metres, shape ``(samples, 50, 2)``.
        test: the same of the test tracks.
        groups: the group of each training track.
        group_names: the names of all groups.

    Raises:
        DataSetBroken: if there are no tracks.

    """
    in_train, in_test = (torch.from_numpy(vehicle_frame(tracks)) for tracks in (train, test))
    return TrackData(
        name,
        train_x=in_train[:, :OBSERVED].contiguous(),
        train_y=in_train[:, OBSERVED:].contiguous(),
        test_x=in_test[:, :OBSERVED].contiguous(),
        test_y=in_test[:, OBSERVED:].contiguous(),
        train_groups=torch.from_numpy(groups),
        group_names=group_names,
    )
