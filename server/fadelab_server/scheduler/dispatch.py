"""Which device uploads next, and which receive: the first level of the rolling horizon.

DMA-FL (arXiv 2305.13503) decides R and U for a whole run ahead; here they are decided one
aggregation at a time (a reconstruction). A device that holds version g must upload at aggregation g
+ K at the latest, or staleness would exceed its cap. Devices are admitted and uploaders chosen so
that an order in which all can keep to this always remains: with the deadlines sorted, the m-th of
them must not be before the m-th next aggregation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Holder:
    """A device that holds a version of the task and has not uploaded since."""

    device: int
    version: int
    """g."""
    ready_in_s: float
    """Until its model is trained; 0 if it is."""
    cost: float
    """What completing its local period adds to the objective, transfers included."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A device that holds no version of the task."""

    device: int
    idle_until_s: float
    """Its idle time is over then."""
    cost: float
    """What its next local period would add to the objective."""


def keeps_cap(versions: Sequence[int], *, newest: int, cap: int) -> bool:
    """Whether holders of these versions can all upload, one in each aggregation, within the cap.

    Args:
        versions: g of each holder.
        newest: the newest version, which is the number of the next aggregation.
        cap: K.

    """
    deadlines = np.sort(np.asarray(versions, dtype=np.int64)) + cap
    return bool(np.all(deadlines >= newest + np.arange(len(deadlines))))


def admissible(versions: Sequence[int], *, newest: int, cap: int) -> int:
    """Return how many more devices may receive the newest version.

    All deadlines are at most ``newest + cap``, so that ``cap + 1`` devices hold versions at most; as
    one of them then uploads, receptions outnumber aggregations by ``cap`` at most (29d).
    """
    return max(0, cap + 1 - len(versions)) if keeps_cap(versions, newest=newest, cap=cap) else 0


def next_uploader(
    holders: Sequence[Holder], *, newest: int, cap: int, lookahead_s: float = 0.0
) -> Holder | None:
    """Return the holder that makes the next aggregation; None to wait for one that is not ready.

    Of those that are ready, or will be within the lookahead, and whose turn leaves the others able to
    keep the cap: the one that adds least to the objective; of equals the oldest version, then the
    lowest number.

    Args:
        holders: of the task.
        newest: number of the newest version.
        cap: K.
        lookahead_s: how long it is worth to wait for a better one.

    """
    best: tuple[float, int, int] | None = None
    chosen: Holder | None = None
    for holder in holders:
        if holder.ready_in_s > lookahead_s or newest - holder.version > cap:
            continue
        others = [other.version for other in holders if other is not holder]
        if not keeps_cap(others, newest=newest + 1, cap=cap):
            continue
        rank = (holder.cost, holder.version, holder.device)
        if best is None or rank < best:
            best, chosen = rank, holder
    return chosen


def next_receivers(
    waiting: Sequence[Waiting],
    holders: Sequence[Holder],
    *,
    newest: int,
    cap: int,
    now_s: float,
) -> tuple[int, ...]:
    """Return the devices that receive the newest version now.

    All whose idle time is over, the cheapest first, as many as the cap admits. If nobody holds a
    version and nobody's idle time is over, the task would stand still until then; that is what idle
    times are for.

    Args:
        waiting: devices without a version.
        holders: devices with one.
        newest: number of the newest version.
        cap: K.
        now_s: the present.

    """
    room = admissible([holder.version for holder in holders], newest=newest, cap=cap)
    rested = [device for device in waiting if device.idle_until_s <= now_s]
    rested.sort(key=lambda device: (device.cost, device.device))
    return tuple(device.device for device in rested[:room])
