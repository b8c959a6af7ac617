"""Lazy aggregation: devices send how their updates changed, and nothing if that is little.

LAQ (Sun, Chen, Giannakis and Yang, NeurIPS 2019, equation 4) and AQUILA (Zhao et al., arXiv
2308.00258). The server keeps a reference for each device: the sum of what arrived from it, which is
its last update as far as it was sent. In each round the model moves by the sample-weighted mean of
the references, so a device that has nothing new to say counts with what it said before.

A reference takes as much memory as the model, for each device.
"""

import numpy as np

from fadelab_server.aggregation.base import F32, Arrays, Contribution, Roster
from fadelab_server.config import LazyConfig

_BLOCK = 1 << 16
"""Coordinates that are averaged at a time, so that double precision takes little memory."""


class Lazy:
    """Collect what devices say to the newest version until the quorum is reached, then average."""

    synchronous = True
    incremental = False
    takes_silence = True

    def __init__(self, config: LazyConfig, dimension: int) -> None:
        self._quorum = config.quorum
        self._dimension = dimension
        self._references: dict[int, F32] = {}
        """By device. Arrays are replaced, never changed: a snapshot may hold them."""
        self._samples: dict[int, int] = {}
        self._spoken: set[int] = set()
        """The devices that have sent something in this round, or that they send nothing."""

    def refuse(self, *, device: int, base_version: int, newest: int) -> str | None:
        """Refuse updates to past rounds and second updates to the same round."""
        if base_version != newest:
            return f"the round of version {base_version} is over; the newest version is {newest}"
        if device in self._spoken:
            return f"device {device} has already contributed to the round of version {newest}"
        return None

    def add(self, contribution: Contribution, *, newest: F32, roster: Roster) -> F32 | None:
        """Add an update to its device's reference; move the model when enough have spoken."""
        device = contribution.device
        if contribution.fresh_reference:
            self._references.pop(device, None)
        # Added up on its own first, as the device does: both then hold the very same reference.
        reference = np.zeros(self._dimension, dtype=np.float32)
        contribution.add_to(reference)
        if device in self._references:
            reference += self._references[device]
        self._references[device] = reference
        self._samples[device] = contribution.samples
        self._spoken.add(device)
        return self.roster_changed(newest=newest, roster=roster)

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:
        """End the round when everybody who is still there, or the quorum, has spoken."""
        quorate = self._quorum is not None and len(self._spoken) >= self._quorum
        if not self._spoken or not (quorate or roster <= self._spoken):
            return None
        # Those who have spoken in this round count even if they have left since, as in FedAvg.
        counted = sorted((roster | self._spoken) & self._references.keys())
        result = self._moved(newest, counted)
        self._spoken.clear()
        return result

    def _moved(self, newest: F32, counted: list[int]) -> F32:
        result = newest.copy()
        samples = sum(self._samples[device] for device in counted)
        for first in range(0, self._dimension, _BLOCK):
            run = slice(first, first + _BLOCK)
            mean = np.zeros(len(result[run]))
            for device in counted:
                mean += (self._samples[device] / samples) * self._references[device][run]
            result[run] = newest[run] + mean
        return result

    def pending(self) -> Arrays:
        """Return every reference with its samples, and who has spoken in this round."""
        devices = sorted(self._references)
        arrays: Arrays = {f"reference.{device}": self._references[device] for device in devices}
        arrays["devices"] = np.array(devices, dtype=np.int64)
        arrays["samples"] = np.array([self._samples[own] for own in devices], dtype=np.int64)
        arrays["spoken"] = np.array(sorted(self._spoken), dtype=np.int64)
        return arrays

    def restore(self, pending: Arrays) -> None:
        """Continue the round that :meth:`pending` described."""
        devices = pending["devices"].tolist()
        self._references = {
            device: pending[f"reference.{device}"].astype(np.float32) for device in devices
        }
        self._samples = dict(zip(devices, pending["samples"].tolist(), strict=True))
        self._spoken = set(pending["spoken"].tolist())
