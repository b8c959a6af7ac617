"""Pictures that turn, a usual way to shift what a model is shown without changing what it means."""

import math
from dataclasses import dataclass, fields

import torch
from torch.nn.functional import affine_grid, grid_sample

from fadelab_agent.drift_config import RotationDrift
from fadelab_agent.tasks.base import DataSetError, TaskData
from fadelab_agent.tasks.pictures import PictureData


def rotation(config: RotationDrift, periods: int) -> float:
    """Return by how many degrees pictures are turned after some periods."""
    degrees = config.degrees_per_period * periods
    return max(-config.most_degrees, min(config.most_degrees, degrees))


@dataclass(frozen=True, slots=True, eq=False)
class RotatedPictures(PictureData):
    """Pictures that are turned counter-clockwise about their middle when they are shown."""

    rotation_deg: float = 0.0

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return turned pixels as float32 between 0 and 1, same shape; black where none was."""
        straight = x.to(torch.float32).div_(self.white)
        angle = math.radians(self.rotation_deg)
        height, width = straight.shape[2:]
        cosine, sine = math.cos(angle), math.sin(angle)
        # Coordinates run from -1 to 1 along both sides, whatever their lengths.
        turn = torch.tensor(
            [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
        )
        grid = affine_grid(
            turn.expand(len(straight), 2, 3), list(straight.shape), align_corners=False
        )
        return grid_sample(straight, grid, align_corners=False)


def rotated(data: TaskData, rotation_deg: float) -> TaskData:
    """Return a task whose pictures are turned; it shares the samples' memory.

    Raises:
        DataSetError: if the task has no pictures and they are to be turned.

    """
    if rotation_deg == 0.0:
        return data
    if not isinstance(data, PictureData):
        raise DataSetError(f"{data.name} has no pictures that could turn: drift cannot be rotation")
    values = {field.name: getattr(data, field.name) for field in fields(PictureData)}
    return RotatedPictures(**values, rotation_deg=rotation_deg)
