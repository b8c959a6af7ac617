"""Telling the class of pictures: what the tasks with pictures have in common."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from fadelab_agent.metric import ACCURACY, Metric
from fadelab_agent.tasks.base import DataSetBroken, TaskData


@dataclass(frozen=True, slots=True, eq=False)
class PictureData(TaskData):
    """Pictures and their classes.

    ``train_x`` and ``test_x`` are uint8 pixels of shape ``(samples, channels, height, width)``;
    ``train_y`` and ``test_y`` int64 classes of shape ``(samples,)``, each below ``classes``.
    Pictures stay bytes, a quarter of what float32 takes, and are scaled batch by batch
    (:meth:`inputs`). The loss is the cross-entropy, the metric accuracy, and partitions divide by
    class.

    Attributes:
        white: the pixel value that stands for 1.0.
        classes: number of classes.

    """

    metric: ClassVar[Metric] = ACCURACY

    white: int = 255
    classes: int = 10

    def __post_init__(self) -> None:
        for x, y, split in (
            (self.train_x, self.train_y, "training"),
            (self.test_x, self.test_y, "test"),
        ):
            if len(x) != len(y):
                raise DataSetBroken(
                    f"{self.name} has {len(x)} {split} pictures but {len(y)} labels"
                )
            if len(y) == 0:
                raise DataSetBroken(f"{self.name} has no {split} samples")
            if int(y.min()) < 0 or int(y.max()) >= self.classes:
                raise DataSetBroken(
                    f"{self.name} has a {split} label outside 0..{self.classes - 1}"
                )

    @property
    def outputs(self) -> int:
        """Return the number of classes: a model gives each a score."""
        return self.classes

    @property
    def groups(self) -> torch.Tensor:
        """Return the class of each training picture."""
        return self.train_y

    @property
    def group_count(self) -> int:
        """Return the number of classes."""
        return self.classes

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return pixels as float32 between 0 and 1, same shape."""
        return x.to(torch.float32).div_(self.white)

    def loss(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy."""
        return cross_entropy(outputs, answers)

    def quality(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return 1 where the highest score is that of the right class, else 0."""
        return (outputs.argmax(dim=1) == answers).to(torch.float32)
