"""Tasks: one file each loads a data set from the layout that its usual tools write."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from fadelab_agent.config import TaskConfig, TaskName
from fadelab_agent.tasks.base import DataSetBroken, DataSetError, DataSetMissing, TaskData
from fadelab_agent.tasks.cifar10 import load_cifar10
from fadelab_agent.tasks.digits import load_digits
from fadelab_agent.tasks.fashion_mnist import load_fashion_mnist
from fadelab_agent.tasks.mnist import load_mnist
from fadelab_agent.tasks.svhn import load_svhn

__all__ = ["TASKS", "DataSetBroken", "DataSetError", "DataSetMissing", "TaskData", "load_task"]

TASKS: dict[TaskName, Callable[[Path], TaskData]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion_mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "svhn": load_svhn,
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
    return TASKS[config.name](config.data_dir if data_dir is None else data_dir)
