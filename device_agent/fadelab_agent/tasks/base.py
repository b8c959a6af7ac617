"""What a task is once its data are loaded, and what can be wrong with a data set."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch

from fadelab_agent.metric import Baseline, Metric
from fadelab_proto.seeds import Stream, generator

# Which samples a limited task uses belongs to the task, so that results of all seeds compare.
_CHOICE_SEED = 5000


class DataSetError(Exception):
    """A data set cannot be used; the message is one sentence for the user."""


class DataSetMissing(DataSetError):  # noqa: N818 - reads as the sentence it is
    """Files of a data set are not where they should be."""


class DataSetBroken(DataSetError):  # noqa: N818
    """A file of a data set does not hold what it should."""


class SampleLimits(NamedTuple):
    """How many samples are used at most; None stands for all."""

    train: int | None = None
    test: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TaskData(ABC):
    """A data set in memory, split into training and test samples, and what fitting it means.

    Processes forked after loading share one copy, since nothing writes to it.

    Attributes:
        name: the task's name in an experiment.
        train_x: what the model is shown, one training sample a row.
        train_y: what it should answer, one a row.
        test_x: as ``train_x``.
        test_y: as ``train_y``.

    """

    metric: ClassVar[Metric]

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of what the model is shown of one sample."""
        return tuple(self.train_x.shape[1:])

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Return how many numbers a model answers for each sample."""

    @property
    @abstractmethod
    def groups(self) -> torch.Tensor:
        """Return what partitions tell training samples apart by.

        int64 of shape ``(training samples,)``, each in ``0..group_count - 1``.
        """

    @property
    @abstractmethod
    def group_count(self) -> int:
        """Return how many groups there may be."""

    @abstractmethod
    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows of ``train_x`` or ``test_x`` as float32, as a model takes them."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return the mean training loss of a batch.

        Args:
            outputs: the model's, float32 of shape ``(batch, self.outputs)``.
            answers: rows of ``train_y`` or ``test_y``.

        """

    @abstractmethod
    def quality(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return each sample's part in the metric, which is their mean; shape ``(batch,)``."""

    def baseline(self) -> Baseline | None:
        """Return what a rule that learns nothing achieves, where there is a usual one."""
        return None

    def limited(self, limits: SampleLimits) -> Self:
        """Return the task with a fixed random choice of its samples."""
        train = choice(len(self.train_y), limits.train)
        test = choice(len(self.test_y), limits.test)
        return replace(
            self,
            train_x=self.train_x[train],
            train_y=self.train_y[train],
            test_x=self.test_x[test],
            test_y=self.test_y[test],
        )


def choice(available: int, wanted: int | None) -> np.ndarray | slice:
    """Choose ``wanted`` of some samples at random, always the same; all, if there are no more.

    Returns:
        ascending positions, int64; or a slice of everything, which copies nothing.

    """
    if wanted is None or wanted >= available:
        return slice(None)
    order = generator(_CHOICE_SEED, Stream.DATA).permutation(available)
    return np.sort(order[:wanted])
