"""FedAvg (McMahan et al. 2017, Algorithm 1): the sample-weighted mean of one round's updates.

With a quorum this is FedAvg-Partial: the round ends at the quorum-th arrival and later updates to
the same version are refused.

A partial update says nothing of some coordinates. With ``missing: reweigh`` each coordinate is the
mean over the devices that did speak of it, weighted by their samples, and stays as it is if none
did. With ``missing: zero`` every device counts everywhere, with 0 where nothing arrived.
"""

import numpy as np

from fadelab_server.aggregation.base import F32, Arrays, Contribution, Roster
from fadelab_server.aggregation.coverage import MissingSamples
from fadelab_server.config import FedAvgConfig

_BLOCK = 1 << 16


class FedAvg:
    """Collect updates to the newest version until the quorum is reached, then average."""

    synchronous = True
    incremental = True
    takes_silence = False

    def __init__(self, config: FedAvgConfig, dimension: int) -> None:
        self._quorum = config.quorum
        self._sum: F32 = np.zeros(dimension, dtype=np.float32)
        self._samples = 0
        self._devices: set[int] = set()
        self._reweighs = config.missing == "reweigh"
        self._missing = MissingSamples()

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
        if self._reweighs and len(contribution.missing):
            self._missing.add(contribution.missing, contribution.samples)
        self._devices.add(contribution.device)
        return self.roster_changed(newest=newest, roster=roster)

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:
        """End the round when everybody who is still there, or the quorum, has contributed."""
        quorate = self._quorum is not None and len(self._devices) >= self._quorum
        if not self._devices or not (quorate or roster <= self._devices):
            return None
        result = self._next(newest)
        self._missing.clear()
        self._samples = 0
        self._devices.clear()
        return result

    def _next(self, newest: F32) -> F32:
        """Return the next model; the sums begin anew."""
        result: F32 = np.empty_like(newest)
        reweighed = [
            (slice(first, last), self._reweighed(slice(first, last), lacking, newest))
            for first, last, lacking in self._missing
        ]
        # In blocks that stay in the processor's cache, the model passes through it only once.
        for first in range(0, len(newest), _BLOCK):
            block = slice(first, first + _BLOCK)
            np.divide(self._sum[block], np.float32(self._samples), out=result[block])
            result[block] += newest[block]
            self._sum[block] = 0
        for run, values in reweighed:
            result[run] = values
        return result

    def _reweighed(self, run: slice, lacking: int, newest: F32) -> F32:
        spoken = np.float32(self._samples - lacking)
        return newest[run] + self._sum[run] / spoken if spoken else newest[run]

    def pending(self) -> Arrays:
        """Return the round's sum, its samples and devices, and what coordinates lack."""
        return {
            "sum": self._sum.copy(),
            "samples": np.array(self._samples),
            "devices": np.array(sorted(self._devices), dtype=np.int64),
            **self._missing.pending(),
        }

    def restore(self, pending: Arrays) -> None:
        """Continue the round that :meth:`pending` described."""
        self._sum = pending["sum"].astype(np.float32)
        self._samples = int(pending["samples"])
        self._devices = {int(device) for device in pending["devices"]}
        self._missing.restore(pending)
