"""FedBuff (Nguyen et al., AISTATS 2022, Algorithm 1): asynchronous updates, applied K at a time.

``w <- w + rate / K * sum_i g(staleness_i) delta_i`` as soon as K updates are in the buffer, whoever
they came from; g is ``(1 + staleness) ** -0.5`` in the paper.
"""

import numpy as np

from fadelab_server.aggregation.base import F32, Arrays, Contribution, Roster
from fadelab_server.aggregation.staleness import staleness_weight, too_stale
from fadelab_server.config import FedBuffConfig


class FedBuff:
    """Collect ``buffer`` updates, then publish."""

    synchronous = False
    incremental = True
    takes_silence = False

    def __init__(self, config: FedBuffConfig, dimension: int) -> None:
        self._size = config.buffer
        self._rate = config.server_rate
        self._weight = staleness_weight(config.staleness)
        self._max_staleness = config.max_staleness
        self._sum: F32 = np.zeros(dimension, dtype=np.float32)
        self._count = 0

    def refuse(self, *, device: int, base_version: int, newest: int) -> str | None:  # noqa: ARG002
        """Refuse updates that are staler than the limit."""
        return too_stale(newest - base_version, self._max_staleness)

    def add(self, contribution: Contribution, *, newest: F32, roster: Roster) -> F32 | None:  # noqa: ARG002
        """Add ``g delta`` to the buffer; return the next model if it is full."""
        contribution.add_to(self._sum, self._weight(contribution.staleness))
        self._count += 1
        if self._count < self._size:
            return None
        result: F32 = newest + np.float32(self._rate / self._count) * self._sum
        self._sum[:] = 0
        self._count = 0
        return result

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:  # noqa: ARG002
        """Wait on: those who are left fill the buffer."""
        return None

    def pending(self) -> Arrays:
        """Return the buffer's sum and how many updates are in it."""
        return {"sum": self._sum.copy(), "count": np.array(self._count)}

    def restore(self, pending: Arrays) -> None:
        """Continue with the buffer that :meth:`pending` described."""
        self._sum = pending["sum"].astype(np.float32)
        self._count = int(pending["count"])
