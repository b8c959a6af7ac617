"""Class shares drawn from a Dirichlet law, the usual model of uneven data in federated learning.

Without equal sizes, each class is divided among the devices by shares that are drawn from
Dir(beta, ..., beta) over the devices, so the sizes differ as well (Yurochkin et al., ICML 2019).
With equal sizes, each device draws its mix of classes from Dir(beta, ..., beta) over the classes
and fills its quota by it while the supply lasts (Hsu, Qi and Brown, arXiv 1909.06335).
"""

import numpy as np

from fadelab_agent.config import DirichletPartition
from fadelab_agent.partition.base import Indices


def dirichlet(
    config: DirichletPartition,
    labels: Indices,
    devices: int,
    classes: int,
    rng: np.random.Generator,
) -> list[Indices]:
    """Divide the samples of each class by random shares; every device gets at least one."""
    shuffled = rng.permutation(len(labels))
    by_class = [shuffled[labels[shuffled] == label] for label in range(classes)]
    supply = np.array([len(samples) for samples in by_class])
    if config.equal_sizes:
        counts = _counts_of_equal_sizes(config.beta, supply, devices, rng)
    else:
        counts = _counts_by_class(config.beta, supply, devices, rng)
        _feed_the_empty(counts, rng)
    ends = np.cumsum(counts, axis=0)
    return [
        np.concatenate(
            [
                by_class[label][ends[device, label] - counts[device, label] : ends[device, label]]
                for label in range(classes)
            ]
        )
        for device in range(devices)
    ]


def _counts_by_class(
    beta: float, supply: Indices, devices: int, rng: np.random.Generator
) -> Indices:
    """Return how many samples of each class each device gets, shape ``(devices, classes)``."""
    shares = rng.dirichlet(np.full(devices, beta), size=len(supply))
    ends = np.rint(np.cumsum(shares, axis=1) * supply[:, None]).astype(np.int64)
    # Rounded shares may miss the last sample of a class: the last device takes what remains.
    ends[:, -1] = supply
    return np.diff(ends, axis=1, prepend=0).T


def _feed_the_empty(counts: Indices, rng: np.random.Generator) -> None:
    """Move one sample from the largest device to each that has none."""
    for device in np.flatnonzero(counts.sum(axis=1) == 0):
        largest = int(counts.sum(axis=1).argmax())
        label = rng.choice(np.flatnonzero(counts[largest]))
        counts[largest, label] -= 1
        counts[device, label] += 1


def _counts_of_equal_sizes(
    beta: float, supply: Indices, devices: int, rng: np.random.Generator
) -> Indices:
    quota = int(supply.sum()) // devices
    left = supply.copy()
    counts = np.zeros((devices, len(supply)), dtype=np.int64)
    for device in rng.permutation(devices):
        mix = rng.dirichlet(np.full(len(supply), beta))
        while (needed := quota - counts[device].sum()) > 0:
            odds = np.where(left > 0, mix, 0.0)
            if odds.sum() == 0.0:
                odds = left.astype(np.float64)
            taken = np.minimum(rng.multinomial(needed, odds / odds.sum()), left)
            counts[device] += taken
            left -= taken
    return counts
