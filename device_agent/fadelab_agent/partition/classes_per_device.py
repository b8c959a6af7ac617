"""Devices hold different numbers of classes: the "varied" data of DMA-FL (arXiv 2305.13503)."""

import numpy as np

from fadelab_agent.config import ClassesPerDevicePartition
from fadelab_agent.partition.base import Indices
from fadelab_agent.partition.label_sets import divide_by_label_sets


def classes_per_device(
    config: ClassesPerDevicePartition,
    labels: Indices,
    devices: int,
    classes: int,
    rng: np.random.Generator,
) -> list[Indices]:
    """Divide samples so that device i holds the i-th of the configured numbers of classes.

    Raises:
        PartitionError: if one of them is more than there are classes.

    """
    counts = range(1, classes + 1) if config.counts == "varied" else config.counts
    sizes = [counts[device % len(counts)] for device in range(devices)]
    return divide_by_label_sets(sizes, labels, classes, rng, equal_sizes=config.equal_sizes)
