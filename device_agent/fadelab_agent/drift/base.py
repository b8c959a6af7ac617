"""What all kinds of drift share: a device's part, the time that has passed, and what it holds."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from fadelab_agent.drift_config import DriftPaceConfig
from fadelab_agent.partition import Indices
from fadelab_proto.seeds import Stream, generator


@dataclass(frozen=True, slots=True)
class DriftTime:
    """How long a device has waited or transferred, and how long it has computed, for one task."""

    idle_s: float = 0.0
    active_s: float = 0.0

    def after(self, elapsed_s: float, *, active: bool) -> Self:
        """Return the time when ``elapsed_s`` more have passed, all in one of both states."""
        if elapsed_s < 0:
            raise ValueError(f"time does not go back by {-elapsed_s} s")
        if active:
            return replace(self, active_s=self.active_s + elapsed_s)
        return replace(self, idle_s=self.idle_s + elapsed_s)

    def periods(self, config: DriftPaceConfig) -> int:
        """Return how many whole periods of drift time that is."""
        drift_s = self.idle_s * config.idle_pace + self.active_s * config.active_pace
        # A period that is reached by adding up fractions counts.
        return int(np.floor(drift_s / config.period_s + 1e-9))


@dataclass(frozen=True, slots=True, eq=False)
class LocalSet:
    """What a device holds at a moment."""

    indices: Indices
    """Of training samples, ascending, at least one."""
    rotation_deg: float = 0.0
    """By how much pictures are turned."""

    def same_as(self, other: "LocalSet") -> bool:
        """Whether both hold the same samples, turned alike."""
        return self.rotation_deg == other.rotation_deg and np.array_equal(
            self.indices, other.indices
        )


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The samples of a task that a device holds some of, in the random order of its drift."""

    indices: Indices
    """Ascending."""
    shuffled: Indices
    """The same, in random order."""
    groups: Indices
    """What partitions tell samples apart by, of each in ``shuffled``."""
    group_order: Indices
    """The groups that occur, in random order."""

    @classmethod
    def of(cls, indices: Indices, groups: Indices, *, seed: int, task: int, device: int) -> Self:
        """Shuffle a part.

        Args:
            indices: the device's training samples, at least one.
            groups: of all training samples of the task.
            seed: the experiment's.
            task: the task's number.
            device: the device's number.

        """
        rng = generator(seed, Stream.DRIFT, task, device)
        shuffled = rng.permutation(indices)
        return cls(
            np.sort(indices),
            shuffled,
            groups[shuffled],
            rng.permutation(np.unique(groups[shuffled])),
        )
