"""Tasks: one file each loads a data set from the layout that its usual tools write."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from fadelab_agent.config import TaskConfig, TaskName
from fadelab_agent.tasks.argoverse import load_argoverse
from fadelab_agent.tasks.base import (
    DataSetBroken,
    DataSetError,
    DataSetMissing,
    SampleLimits,
    TaskData,
)
from fadelab_agent.tasks.cifar10 import load_cifar10
from fadelab_agent.tasks.digits import load_digits
from fadelab_agent.tasks.fashion_mnist import load_fashion_mnist
from fadelab_agent.tasks.mnist import load_mnist
from fadelab_agent.tasks.svhn import load_svhn
from fadelab_agent.tasks.synthetic_tracks import load_synthetic_tracks

__all__ = ["TASKS", "DataSetBroken", "DataSetError", "DataSetMissing", "TaskData", "load_task"]


Loader = Callable[[Path, SampleLimits], TaskData]


def _whole(load: Callable[[Path], TaskData]) -> Loader:
    """Make a loader of one that always reads everything."""
    return lambda data_dir, limits: load(data_dir).limited(limits)


TASKS: dict[TaskName, Loader] = {
    "digits": _whole(load_digits),
    "mnist": _whole(load_mnist),
    "fashion_mnist": _whole(load_fashion_mnist),
    "cifar10": _whole(load_cifar10),
    "svhn": _whole(load_svhn),
    "synthetic_tracks": _whole(load_synthetic_tracks),
    "argoverse": load_argoverse,
}

if set(TASKS) != set(get_args(TaskName)):
    raise ImportError("fadelab_agent.tasks.TASKS does not match TaskName in config.py")


def load_task(config: TaskConfig, data_dir: Path | None = None) -> TaskData:
    """Load the data of the task that ``config`` names.

    Args:
        config: the task.
        data_dir: where to look instead of ``config.data_dir``, for callers that resolved it.

    Raises:
        DataSetMissing: if files are not there; the message says which and where.
        DataSetBroken: if a file does not hold what it should.

    """
    limits = SampleLimits(config.train_samples, config.test_samples)
    return TASKS[config.name](config.data_dir if data_dir is None else data_dir, limits)
