"""Partitions: which training samples each device holds; one file each."""

from typing import assert_never

import numpy as np
from numpy.typing import ArrayLike

from fadelab_agent.config import (
    ClassesPerDevicePartition,
    DirichletPartition,
    IidPartition,
    LabelsPerDevicePartition,
    PartitionConfig,
)
from fadelab_agent.partition.base import Indices, PartitionError
from fadelab_agent.partition.classes_per_device import classes_per_device
from fadelab_agent.partition.dirichlet import dirichlet
from fadelab_agent.partition.iid import iid
from fadelab_agent.partition.labels_per_device import labels_per_device
from fadelab_proto.seeds import Stream, generator

__all__ = ["Indices", "PartitionError", "partition"]


def partition(
    config: PartitionConfig, labels: ArrayLike, devices: int, classes: int, seed: int
) -> list[Indices]:
    """Divide samples among devices; the same arguments always give the same parts.

    Args:
        config: how to divide.
        labels: the class of each sample, shape ``(samples,)``, each in ``0..classes - 1``.
        devices: number of parts.
        classes: number of classes.
        seed: the experiment's seed.

    Returns:
        For each device the ascending indices of its samples: at least one, none twice, and no
        sample on two devices.

    Raises:
        PartitionError: if there are more devices than samples, or devices should hold more
            classes than there are.

    """
    of_sample = np.asarray(labels, dtype=np.int64)
    if devices < 1:
        raise PartitionError(f"samples cannot be divided among {devices} devices")
    if devices > len(of_sample):
        raise PartitionError(
            f"{devices} devices cannot share {len(of_sample)} training samples: each needs one"
        )
    rng = generator(seed, Stream.DATA)
    match config:
        case IidPartition():
            parts = iid(config, of_sample, devices, rng)
        case LabelsPerDevicePartition():
            parts = labels_per_device(config, of_sample, devices, classes, rng)
        case ClassesPerDevicePartition():
            parts = classes_per_device(config, of_sample, devices, classes, rng)
        case DirichletPartition():
            parts = dirichlet(config, of_sample, devices, classes, rng)
        case _:
            assert_never(config)
    return [np.sort(part) for part in parts]
