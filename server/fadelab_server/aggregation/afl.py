"""Plain asynchronous federated learning: every arriving update is added at once.

``w <- w + g(staleness) delta / N`` (arXiv 2506.07328, as reconstructed in docs/methods/mads.md; delta
is minus the sum of the device's gradient steps). N is the number of devices that train the task, so
that all of them together move the model as far as one of them moves alone; g weighs stale updates
less, or not. What an update does not hold has not changed: its device remembers it.
"""

import numpy as np

from fadelab_server.aggregation.base import F32, Arrays, Contribution, Roster
from fadelab_server.aggregation.staleness import staleness_weight, too_stale
from fadelab_server.config import AflConfig


class Afl:
    """Publish a new version for every contribution."""

    synchronous = False
    incremental = False
    takes_silence = False

    def __init__(self, config: AflConfig) -> None:
        self._rate = config.server_rate
        self._devices = config.devices
        self._weight = staleness_weight(config.staleness)
        self._max_staleness = config.max_staleness

    def refuse(self, *, device: int, base_version: int, newest: int) -> str | None:  # noqa: ARG002
        """Refuse updates that are staler than the limit."""
        return too_stale(newest - base_version, self._max_staleness)

    def add(self, contribution: Contribution, *, newest: F32, roster: Roster) -> F32 | None:
        """Return ``newest + rate g delta / N``."""
        devices = self._devices or max(1, len(roster))
        result: F32 = newest.copy()
        share = self._rate * self._weight(contribution.staleness) / devices
        contribution.add_to(result, float(np.float32(share)))
        return result

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:  # noqa: ARG002
        """Nobody is waited for."""
        return None

    def pending(self) -> Arrays:
        """Every contribution is in a version at once."""
        return {}

    def restore(self, pending: Arrays) -> None:
        """There is nothing to restore."""
