"""Partitions: what holds for every kind, and what each kind promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fadelab_agent.config import (
    ClassesPerDevicePartition,
    DirichletPartition,
    IidPartition,
    LabelsPerDevicePartition,
    PartitionConfig,
)
from fadelab_agent.partition import PartitionError, partition

CLASSES = 10


def digits_like(samples: int = 1437, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CLASSES, samples)


@st.composite
def configs(draw: st.DrawFn) -> PartitionConfig:
    equal = draw(st.booleans())
    return draw(
        st.sampled_from(
            [
                IidPartition(equal_sizes=equal),
                DirichletPartition(beta=0.001, equal_sizes=equal),
                DirichletPartition(beta=0.5, equal_sizes=equal),
                LabelsPerDevicePartition(labels=2, equal_sizes=equal),
                ClassesPerDevicePartition(counts=(3, 1), equal_sizes=equal),
            ]
        )
    )


@settings(deadline=None)
@given(
    config=configs(),
    # Every class at least once, then any mix: even a device per sample must work.
    extra=st.lists(st.integers(0, CLASSES - 1), max_size=60),
    devices=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_nobody_is_empty_and_nothing_is_given_twice(
    config: PartitionConfig, extra: list[int], devices: int, seed: int
) -> None:
    labels = np.array([*range(CLASSES), *extra])
    if devices > len(labels):
        with pytest.raises(PartitionError, match="each needs one"):
            partition(config, labels, devices, CLASSES, seed)
        return
    parts = partition(config, labels, devices, CLASSES, seed)
    together = np.concatenate(parts)
    assert len(parts) == devices
    assert all(len(part) >= 1 and part.dtype == np.int64 for part in parts)
    assert len(np.unique(together)) == len(together)
    assert together.min() >= 0
    assert together.max() < len(labels)
    if config.equal_sizes:
        assert len({len(part) for part in parts}) == 1
    else:
        assert len(together) == len(labels) or devices < CLASSES
    again = partition(config, labels, devices, CLASSES, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


KINDS: list[PartitionConfig] = [
    IidPartition(),
    IidPartition(equal_sizes=True),
    DirichletPartition(beta=0.1),
    DirichletPartition(beta=0.1, equal_sizes=True),
    LabelsPerDevicePartition(),
    LabelsPerDevicePartition(equal_sizes=True),
    ClassesPerDevicePartition(),
    ClassesPerDevicePartition(equal_sizes=True),
]


@pytest.mark.parametrize("config", KINDS, ids=repr)
@pytest.mark.parametrize("devices", [1, 8, 100, 1000])
def test_many_devices_share_few_samples(config: PartitionConfig, devices: int) -> None:
    parts = partition(config, digits_like(), devices, CLASSES, seed=1)
    assert min(len(part) for part in parts) >= 1


@pytest.mark.parametrize("config", KINDS, ids=repr)
def test_another_seed_gives_another_partition(config: PartitionConfig) -> None:
    one, two = (partition(config, digits_like(), 8, CLASSES, seed) for seed in (1, 2))
    assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_iid_deals_everything_evenly() -> None:
    parts = partition(IidPartition(), digits_like(), 8, CLASSES, seed=0)
    assert sum(map(len, parts)) == 1437
    assert {len(part) for part in parts} == {179, 180}


@settings(deadline=None)
@given(labels=st.integers(1, CLASSES), devices=st.integers(1, 40), seed=st.integers(0, 1000))
def test_labels_per_device_holds_exactly_that_many(labels: int, devices: int, seed: int) -> None:
    of_sample = digits_like()
    config = LabelsPerDevicePartition(labels=labels)
    for part in partition(config, of_sample, devices, CLASSES, seed):
        assert len(np.unique(of_sample[part])) == labels


def test_labels_are_spread_evenly() -> None:
    of_sample = digits_like()
    parts = partition(LabelsPerDevicePartition(labels=2), of_sample, 20, CLASSES, seed=3)
    holders = np.zeros(CLASSES)
    for part in parts:
        holders[np.unique(of_sample[part])] += 1
    assert holders.min() >= 3
    assert holders.max() <= 5


def test_scarce_samples_give_at_most_the_labels_asked() -> None:
    of_sample = digits_like()
    for part in partition(LabelsPerDevicePartition(labels=2), of_sample, 1000, CLASSES, seed=0):
        assert 1 <= len(np.unique(of_sample[part])) <= 2


def test_varied_gives_device_n_n_classes() -> None:
    of_sample = digits_like()
    parts = partition(ClassesPerDevicePartition(), of_sample, 12, CLASSES, seed=5)
    assert [len(np.unique(of_sample[part])) for part in parts] == [*range(1, 11), 1, 2]


def test_equal_sizes_keep_most_of_the_data() -> None:
    of_sample = digits_like()
    dirichlet = DirichletPartition(beta=0.5, equal_sizes=True)
    assert {len(part) for part in partition(dirichlet, of_sample, 8, CLASSES, 0)} == {1437 // 8}
    varied = ClassesPerDevicePartition(equal_sizes=True)
    assert sum(map(len, partition(varied, of_sample, 10, CLASSES, 0))) > 1437 // 3


@pytest.mark.parametrize("equal_sizes", [False, True])
def test_beta_sets_the_skew(equal_sizes: bool) -> None:
    of_sample = digits_like()

    def mean_largest_share(beta: float) -> float:
        config = DirichletPartition(beta=beta, equal_sizes=equal_sizes)
        parts = partition(config, of_sample, 8, CLASSES, seed=0)
        shares = [np.bincount(of_sample[p], minlength=CLASSES).max() / len(p) for p in parts]
        return float(np.mean(shares))

    assert mean_largest_share(0.05) > 0.45
    assert mean_largest_share(1000.0) < 0.2


def test_a_missing_class_is_no_obstacle() -> None:
    of_sample = digits_like() % 3
    for config in KINDS[:6]:
        parts = partition(config, of_sample, 8, CLASSES, seed=0)
        assert min(map(len, parts)) >= 1
    with pytest.raises(PartitionError, match="cannot hold 10 classes"):
        partition(ClassesPerDevicePartition(), of_sample, 10, CLASSES, seed=0)


def test_impossible_divisions_are_refused() -> None:
    with pytest.raises(PartitionError, match="cannot hold 11 classes"):
        partition(LabelsPerDevicePartition(labels=11), digits_like(), 8, CLASSES, seed=0)
    with pytest.raises(PartitionError, match="0 devices"):
        partition(IidPartition(), digits_like(), 0, CLASSES, seed=0)
