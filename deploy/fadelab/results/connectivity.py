"""Wrong connectivity: what links were told to be, against what passed over them."""

import numpy as np
from numpy.typing import NDArray

from fadelab.results.schema import Connectivity
from fadelab_emulation.achieved import Achieved
from fadelab_emulation.backends.fidelity import GUARD_S

_FRAME_BITS = 8 * 1514
_PATIENCE = 3.0
"""An open link with packets waiting has time for so many full frames before it counts as stuck."""


def connectivity(
    achieved: Achieved,
    *,
    is_open: NDArray[np.bool_],
    rate_bps: NDArray[np.floating],
    tick_s: float,
    direction: str,
) -> Connectivity:
    """Return the confusion matrix of one direction of one link.

    Args:
        achieved: the link's readings.
        is_open: programmed state of each tick, shape ``(ticks,)``.
        rate_bps: programmed rate of each tick, of the slowest packet class; shape ``(ticks,)``.
        tick_s: length of a tick on the wall.
        direction: ``up`` or ``down``.

    An interval between two readings is judged if the link was open, or closed, throughout. Open
    with nothing waiting and nothing passing proves nothing and is not counted, nor is what passes
    within the guard time after a window closed: it was on its way.

    """
    known = achieved.tick < len(is_open)
    rows, tick = achieved.rows[known], achieved.tick[known]
    if len(tick) < 2:
        return Connectivity(open_passed=0, open_stuck=0, closed_silent=0, closed_passed=0)
    before, after = tick[:-1], tick[1:]
    opened = np.concatenate([[0], np.cumsum(is_open)])
    ticks_open = opened[after + 1] - opened[before]
    open_throughout, closed_throughout = ticks_open == after - before + 1, ticks_open == 0
    passed = np.diff(rows[f"{direction}_through_packets"].astype(np.int64)) > 0
    backlog = rows[f"{direction}_backlog_bytes"]
    waited = (backlog[1:] > 0) & (backlog[:-1] > 0)
    bits = np.concatenate([[0.0], np.cumsum(rate_bps, dtype=np.float64)]) * tick_s
    due = bits[after] - bits[before] > _PATIENCE * _FRAME_BITS
    settled = _closed_ticks(is_open)[before] * tick_s >= GUARD_S
    return Connectivity(
        open_passed=int(np.sum(open_throughout & passed)),
        open_stuck=int(np.sum(open_throughout & ~passed & waited & due)),
        closed_silent=int(np.sum(closed_throughout & ~passed)),
        closed_passed=int(np.sum(closed_throughout & settled & passed)),
    )


def total(matrices: list[Connectivity]) -> Connectivity:
    """Add confusion matrices up."""
    return Connectivity(
        open_passed=sum(m.open_passed for m in matrices),
        open_stuck=sum(m.open_stuck for m in matrices),
        closed_silent=sum(m.closed_silent for m in matrices),
        closed_passed=sum(m.closed_passed for m in matrices),
    )


def _closed_ticks(is_open: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many ticks ago the link was closed, where it is closed."""
    number = np.arange(len(is_open))
    first_closed = np.maximum.accumulate(np.where(is_open, number + 1, 0))
    ticks: NDArray[np.int64] = number - first_closed
    return ticks
