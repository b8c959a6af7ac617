"""What a task is once its data are loaded, and what can be wrong with a data set."""

from dataclasses import dataclass

import torch


class DataSetError(Exception):
    """A data set cannot be used; the message is one sentence for the user."""


class DataSetMissing(DataSetError):  # noqa: N818 - reads as the sentence it is
    """Files of a data set are not where they should be."""


class DataSetBroken(DataSetError):  # noqa: N818
    """A file of a data set does not hold what it should."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskData:
    """A data set in memory, split into training and test samples.

    Pictures stay bytes, a quarter of what float32 takes, and are scaled batch by batch
    (:meth:`inputs`). Processes forked after loading share one copy, since nothing writes to it.

    Attributes:
        name: the task's name in an experiment.
        train_x: uint8 pixels, shape ``(samples, channels, height, width)``.
        train_y: int64 labels, shape ``(samples,)``, each below ``classes``.
        test_x: as ``train_x``.
        test_y: as ``train_y``.
        white: the pixel value that stands for 1.0.
        classes: number of classes.
        metric: name of the quality measure.
        higher_is_better: whether a larger metric is a better model.

    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    white: int = 255
    classes: int = 10
    metric: str = "accuracy"
    higher_is_better: bool = True

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
    def input_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of one picture."""
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return ``pixels`` as float32 between 0 and 1, same shape."""
        return pixels.to(torch.float32).div_(self.white)
