"""FedAvg (McMahan et al. 2017, Algorithm 1): the sample-weighted mean of one round's updates.

With a quorum this is FedAvg-Partial: the round ends at the quorum-th arrival and later updates to
the same version are refused.
"""

import numpy as np
from numpy.typing import NDArray

from fadelab_server.aggregation.base import F32, Arrays, Contribution, Roster
from fadelab_server.config import FedAvgConfig


class FedAvg:
    """Collect updates to the newest version until the quorum is reached, then average."""

    synchronous = True

    def __init__(self, config: FedAvgConfig, dimension: int) -> None:
        self._quorum = config.quorum
        self._sum: NDArray[np.float64] = np.zeros(dimension)
        self._samples = 0
        self._devices: set[int] = set()

    def refuse(self, *, device: int, base_version: int, newest: int) -> str | None:
        """Refuse updates to past rounds and second updates to the same round."""
        if base_version != newest:
            return f"the round of version {base_version} is over; the newest version is {newest}"
        if device in self._devices:
            return f"device {device} has already contributed to the round of version {newest}"
        return None

    def add(self, contribution: Contribution, *, newest: F32, roster: Roster) -> F32 | None:
        """Add ``samples * delta``; average when enough devices have contributed."""
        contribution.add_to(self._sum, contribution.samples)
        self._samples += contribution.samples
        self._devices.add(contribution.device)
        return self.roster_changed(newest=newest, roster=roster)

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:
        """End the round when everybody who is still there, or the quorum, has contributed."""
        quorate = self._quorum is not None and len(self._devices) >= self._quorum
        if not self._devices or not (quorate or roster <= self._devices):
            return None
        result: F32 = (newest + self._sum / self._samples).astype(np.float32)
        self._sum[:] = 0
        self._samples = 0
        self._devices.clear()
        return result

    def pending(self) -> Arrays:
        """Return the round's sum, sample count and devices."""
        return {
            "sum": self._sum.copy(),
            "samples": np.array(self._samples),
            "devices": np.array(sorted(self._devices), dtype=np.int64),
        }

    def restore(self, pending: Arrays) -> None:
        """Continue the round that :meth:`pending` described."""
        self._sum = pending["sum"].astype(np.float64)
        self._samples = int(pending["samples"])
        self._devices = {int(device) for device in pending["devices"]}
