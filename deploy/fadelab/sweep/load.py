"""How many runs a machine carries at once, and how long they will take."""

import math
import os
from collections.abc import Sequence

from fadelab.experiment import Experiment
from fadelab.sweep.plan import PlannedRun

_CORES_PER_RUN = 2
_DEVICES_PER_CORE = 50
"""docs/performance.md: a hundred devices keep two cores busy."""
_OVERHEAD_S = 10.0
"""Start, preparation, end and report of a small run; replaced by what is measured."""


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def cores_of(experiment: Experiment) -> int:
    """Return how many cores a run should have to itself, so that its links are on time."""
    return max(_CORES_PER_RUN, math.ceil(experiment.devices.count / _DEVICES_PER_CORE))


def default_jobs(runs: Sequence[PlannedRun], available_cores: int) -> int:
    """Return how many runs may go on at once: as many as have cores of their own, at least one."""
    return max(1, available_cores // max(cores_of(run.experiment) for run in runs))


class Estimate:
    """How long runs take: their emulated duration and an overhead, learned from those that ended."""

    def __init__(self) -> None:
        self._overheads_s: list[float] = []

    def learn(self, run: PlannedRun, wall_s: float) -> None:
        """Take note of a run that came to its end."""
        self._overheads_s.append(wall_s - _emulated_wall_s(run.experiment))

    def run_s(self, run: PlannedRun) -> float:
        """Return the wall seconds that a run is expected to take."""
        known = self._overheads_s
        overhead_s = sum(known) / len(known) if known else _OVERHEAD_S
        return max(0.0, _emulated_wall_s(run.experiment) + overhead_s)

    def all_s(self, runs: Sequence[PlannedRun], jobs: int) -> float:
        """Return the wall seconds that runs are expected to take, so many at a time."""
        if not runs:
            return 0.0
        times_s = [self.run_s(run) for run in runs]
        return max(*times_s, sum(times_s) / jobs)


def _emulated_wall_s(experiment: Experiment) -> float:
    return experiment.duration_s / experiment.radio.time_scale
