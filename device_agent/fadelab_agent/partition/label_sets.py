"""Devices that hold a given number of classes each, with the classes spread evenly."""

import numpy as np

from fadelab_agent.partition.base import Indices, PartitionError, cut_to_smallest


def divide_by_label_sets(
    set_sizes: list[int],
    labels: Indices,
    classes: int,
    rng: np.random.Generator,
    *,
    equal_sizes: bool,
) -> list[Indices]:
    """Give device i samples of ``set_sizes[i]`` classes.

    Each device first gets one sample, dealt class by class, so none stays empty however scarce
    the samples are; that sample's class is the first of its set. Sets are then filled with the
    classes that the fewest devices hold, and the rest of each class is divided among its holders.
    A class that no device holds is left out; where samples of a class are scarcer than its
    holders, some hold fewer classes than asked.

    Args:
        set_sizes: number of classes of each device.
        labels: the class of each sample, at least as many as devices.
        classes: number of classes.
        rng: where chances come from.
        equal_sizes: weigh holders of few classes more, then cut all to the smallest device.

    Raises:
        PartitionError: if a device should hold more classes than there are.

    """
    present = np.unique(labels)
    if max(set_sizes) > len(present):
        raise PartitionError(
            f"a device cannot hold {max(set_sizes)} classes: the data set has {len(present)}"
        )
    devices = len(set_sizes)
    dealt = _deal_by_class(labels, present, rng)
    first = dealt[:devices]
    holds = _choose_label_sets(set_sizes, labels[first], present, classes, rng)
    parts = [[sample] for sample in first]
    rest = dealt[devices:]
    for label in np.flatnonzero(holds.any(axis=0)):
        holders = np.flatnonzero(holds[:, label])
        samples = rest[labels[rest] == label]
        # A device of few classes needs a larger share of each to end as large as the others.
        weights = 1.0 / np.array(set_sizes)[holders] if equal_sizes else np.ones(len(holders))
        cuts = np.rint(np.cumsum(weights)[:-1] / weights.sum() * len(samples)).astype(np.int64)
        for device, share in zip(holders, np.split(samples, cuts), strict=True):
            parts[device].extend(share)
    arrays = [np.array(part, dtype=np.int64) for part in parts]
    return cut_to_smallest(arrays, rng) if equal_sizes else arrays


def _deal_by_class(labels: Indices, present: Indices, rng: np.random.Generator) -> Indices:
    """Return all samples in random order, but one of each class in turn while classes last."""
    shuffled = rng.permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for label in present:
        positions = np.flatnonzero(labels[shuffled] == label)
        turn[positions] = np.arange(len(positions))
    return shuffled[np.argsort(turn, kind="stable")]


def _choose_label_sets(
    set_sizes: list[int],
    first_labels: Indices,
    present: Indices,
    classes: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return which device holds which class, booleans of shape ``(devices, classes)``."""
    devices = len(set_sizes)
    holds = np.zeros((devices, classes), dtype=np.bool_)
    holds[np.arange(devices), first_labels] = True
    holders = holds.sum(axis=0)
    for device in rng.permutation(devices):
        others = present[~holds[device, present]]
        rarest = others[np.lexsort((rng.random(len(others)), holders[others]))]
        chosen = rarest[: set_sizes[device] - 1]
        holds[device, chosen] = True
        holders[chosen] += 1
    return holds
