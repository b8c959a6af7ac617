"""Which site serves a device: hysteresis at the edge of coverage, handover within it."""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from fadelab_emulation.contact.base import SAME_INSTANT_S, ContactConfig
from fadelab_emulation.link_state import BoolArray, FloatArray, IntArray


class CellularConfig(ContactConfig):
    """The base of contact models in which sites are compared and links handed over."""

    time_to_trigger_s: float = Field(
        default=0.0,
        ge=0,
        le=60,
        description="How long another site must have been better by the handover margin before "
        "the link is handed over to it.",
    )
    interruption_s: float = Field(
        default=0.0,
        ge=0,
        le=60,
        description="How long a link is closed when it is handed over, rounded up to ticks.",
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a site's score, of which more is better, has to be for what."""

    opens: float
    """The least with which a closed link opens."""
    closes: float
    """An open link closes below it."""
    margin: float
    """By how much another site must be better for a handover."""


class Serving:
    """Chooses every device's site, and says whether the link to it is open.

    A link opens once the best site reaches ``opens`` and closes when no site reaches ``closes``
    any more. In between it stays with its site until another has been better by ``margin`` for
    the time to trigger, as at event A3 of 3GPP TS 38.331, 5.5.4.4 (one timer per site), or until
    its own falls below ``closes``: then it goes to the best at once. Either handover closes the
    link for ``interruption_s``, during which no further handover is begun but for a lost site.
    """

    def __init__(self, config: CellularConfig, limits: Limits, devices: int, sites: int) -> None:
        self._config = config
        self._limits = limits
        self._connected = np.zeros(devices, dtype=np.bool_)
        self._site = np.zeros(devices, dtype=np.int64)
        self._better_since_s = np.full((devices, sites), np.inf)
        self._back_s = np.full(devices, -np.inf)  # when the last handover's interruption ends
        self._rows = np.arange(devices)

    def update(
        self, t_s: float, score: FloatArray, present: BoolArray | None
    ) -> tuple[BoolArray, IntArray]:
        """Return whether each link is open and its site; called once per tick, in order.

        Args:
            t_s: emulated seconds since the start.
            score: of every site, more is better, shape ``(devices, sites)``.
            present: which devices are in the area; None for all of them.

        """
        best = score.argmax(axis=1)
        limit = np.where(self._connected, self._limits.closes, self._limits.opens)
        connected = score[self._rows, best] >= limit
        if present is not None:
            connected &= present
        stayed = connected & self._connected
        site = self._handed_over(t_s, score)
        lost = score[self._rows, site] < self._limits.closes
        site = np.where(stayed & ~lost, site, best)
        moved = stayed & (site != self._site)
        self._better_since_s[moved | ~stayed] = np.inf
        self._back_s[~stayed] = -np.inf
        self._back_s[moved] = t_s + self._config.interruption_s
        self._connected, self._site = connected, site
        return connected & self._is_back(t_s), site

    def _handed_over(self, t_s: float, score: FloatArray) -> IntArray:
        """Return the site to which each link goes by margin and time to trigger, or its own."""
        least = score[self._rows, self._site] + self._limits.margin
        better = score > least[:, None]
        self._better_since_s = np.where(better, np.minimum(self._better_since_s, t_s), np.inf)
        due = t_s - self._better_since_s >= self._config.time_to_trigger_s - SAME_INSTANT_S
        target = np.where(due, score, -np.inf).argmax(axis=1)
        return np.where(due.any(axis=1) & self._is_back(t_s), target, self._site)

    def _is_back(self, t_s: float) -> BoolArray:
        back: BoolArray = self._back_s <= t_s + SAME_INSTANT_S
        return back
