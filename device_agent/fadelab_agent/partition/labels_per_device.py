"""Every device holds samples of the same small number of classes."""

import numpy as np

from fadelab_agent.config import LabelsPerDevicePartition
from fadelab_agent.partition.base import Indices
from fadelab_agent.partition.label_sets import divide_by_label_sets


def labels_per_device(
    config: LabelsPerDevicePartition,
    labels: Indices,
    devices: int,
    classes: int,
    rng: np.random.Generator,
) -> list[Indices]:
    """Divide samples so that each device holds ``config.labels`` classes.

    Raises:
        PartitionError: if there are fewer classes.

    """
    sizes = [config.labels] * devices
    return divide_by_label_sets(sizes, labels, classes, rng, equal_sizes=config.equal_sizes)
