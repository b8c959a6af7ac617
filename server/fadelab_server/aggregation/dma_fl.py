"""DMA-FL (Chang et al., arXiv 2305.13503, equation 6): mix every arriving model in, in turn.

``w <- (1 - alpha_t) w + alpha_t w_new`` with ``alpha_t = alpha * s(staleness)``, as FedAsync weighs
it. Each operation is rounded to float32 in the order of
:func:`fadelab_server.scheduler.event_log.mix`, so that the log of receptions and uploads leads to
the same models bit for bit.
"""

from dataclasses import dataclass

import numpy as np

from fadelab_server.aggregation.base import F32, Arrays, Contribution, Roster
from fadelab_server.aggregation.staleness import staleness_weight, too_stale
from fadelab_server.config import DmaFlConfig
from fadelab_server.scheduler.event_log import mix


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """The update that made the newest version."""

    delta: F32
    """Local result minus the version that training began with."""
    mixing: float
    """alpha_t, as float32 has it."""


class DmaFl:
    """Publish a new version for every contribution whose device's turn it is."""

    synchronous = False
    incremental = False
    takes_silence = False

    def __init__(self, config: DmaFlConfig) -> None:
        self._alpha = config.alpha
        self._weight = staleness_weight(config.staleness)
        self._max_staleness = config.max_staleness
        self.turns: dict[int, int] = {}
        """By device that has been told to upload, the version that it trained from."""
        self.last: Arrival | None = None

    def refuse(self, *, device: int, base_version: int, newest: int) -> str | None:
        """Refuse updates out of turn, and those that are staler than the cap."""
        if self.turns.get(device) != base_version:
            return f"it is not the turn of device {device} to upload from version {base_version}"
        return too_stale(newest - base_version, self._max_staleness)

    def add(self, contribution: Contribution, *, newest: F32, roster: Roster) -> F32 | None:  # noqa: ARG002
        """Return ``(1 - alpha_t) newest + alpha_t (base + delta)``."""
        delta = np.zeros_like(newest)
        contribution.add_to(delta)
        mixing = float(np.float32(self._alpha * self._weight(contribution.staleness)))
        self.last = Arrival(delta, mixing)
        return mix(newest, contribution.base + delta, mixing)

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:  # noqa: ARG002
        """Nobody is waited for."""
        return None

    def pending(self) -> Arrays:
        """Every contribution is in a version at once."""
        return {}

    def restore(self, pending: Arrays) -> None:
        """There is nothing to restore."""
