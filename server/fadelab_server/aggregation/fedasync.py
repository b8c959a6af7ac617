"""FedAsync (Xie et al., arXiv 1903.03934, Algorithm 1): mix every arriving model in.

``x <- (1 - a_t) x + a_t x_new`` with ``a_t = alpha * s(staleness)``. The mixing weight is computed
from the constant alpha at each arrival; multiplying it up from one arrival to the next would let
it decay to zero.

Where no packet of a partial update arrived, ``missing: reweigh`` leaves the model as it is;
``missing: zero`` mixes in the base version, as if training had changed nothing there.
"""

import numpy as np

from fadelab_server.aggregation.base import F32, Arrays, Contribution, Roster
from fadelab_server.aggregation.staleness import staleness_weight, too_stale
from fadelab_server.config import FedAsyncConfig


class FedAsync:
    """Publish a new version for every contribution."""

    synchronous = False
    incremental = False
    takes_silence = False

    def __init__(self, config: FedAsyncConfig) -> None:
        self._alpha = config.alpha
        self._weight = staleness_weight(config.staleness)
        self._max_staleness = config.max_staleness
        self._leaves = config.missing == "reweigh"

    def refuse(self, *, device: int, base_version: int, newest: int) -> str | None:  # noqa: ARG002
        """Refuse updates that are staler than the limit."""
        return too_stale(newest - base_version, self._max_staleness)

    def add(self, contribution: Contribution, *, newest: F32, roster: Roster) -> F32 | None:  # noqa: ARG002
        """Return ``(1 - a) newest + a (base + delta)``."""
        mixing = np.float32(self._alpha * self._weight(contribution.staleness))
        # Written as a convex combination, which stays finite whenever both models are.
        result: F32 = (np.float32(1) - mixing) * newest + mixing * contribution.base
        # Mixing equal numbers must not round them: what did not change need not be sent to anybody.
        np.copyto(result, newest, where=contribution.base == newest)
        contribution.add_to(result, float(mixing))
        if self._leaves:
            for first, last in contribution.missing:
                result[first:last] = newest[first:last]
        return result

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:  # noqa: ARG002
        """Nobody is waited for."""
        return None

    def pending(self) -> Arrays:
        """Every contribution is in a version at once."""
        return {}

    def restore(self, pending: Arrays) -> None:
        """There is nothing to restore."""
