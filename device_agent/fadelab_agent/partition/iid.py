"""Every device holds a random sample of the whole data set."""

import numpy as np

from fadelab_agent.config import IidPartition
from fadelab_agent.partition.base import Indices, cut_to_smallest


def iid(
    config: IidPartition, labels: Indices, devices: int, rng: np.random.Generator
) -> list[Indices]:
    """Deal all samples at random; sizes differ by one at most."""
    parts = [np.asarray(part) for part in np.array_split(rng.permutation(len(labels)), devices)]
    return cut_to_smallest(parts, rng) if config.equal_sizes else parts
