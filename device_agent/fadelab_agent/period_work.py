"""What an agent needs of a task whose local periods are scheduled; importable without torch."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.work import TaskWork, Trained
from fadelab_proto.local_period import LocalPlan
from fadelab_proto.period_report import DriftReport, PeriodReport

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Stretches:
    """Times of one task on one device, in emulated seconds of its drift."""

    before_idle_s: float
    """Waited or transferred, and computed, when the last training ended."""
    before_active_s: float
    idle_s: float
    """Waited and transferred since then, up to the beginning of training."""
    compute_s: float
    """That training takes."""


@dataclass(frozen=True, slots=True, eq=False)
class PeriodOutcome:
    """What a device learned, and learned about its data, in one local period."""

    trained: Trained
    samples: int
    """D when training began."""
    report: PeriodReport
    drift: tuple[DriftReport, DriftReport]
    """While the device waited or transferred, and while it computed."""


@runtime_checkable
class PeriodWork(TaskWork, Protocol):
    """One task on one device whose local samples change in time."""

    def samples_after(self, *, idle_s: float, active_s: float) -> int:
        """Return how many samples the device holds after so much time of both kinds."""
        ...

    def train_period(
        self,
        base: F32,
        plan: LocalPlan,
        times: Stretches,
        *,
        update_number: int,
        probe_samples: int,
    ) -> PeriodOutcome:
        """Train as planned and measure what happened; the same arguments give the same outcome."""
        ...
