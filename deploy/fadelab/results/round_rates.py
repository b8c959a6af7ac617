"""Whether the rates of a round's links stayed what its powers were to give them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fadelab.results.record import Event, RunRecord, number


@dataclass(frozen=True, slots=True)
class RateDrift:
    """How far links were from the rates that were planned for them."""

    largest: float = 0.0
    """Relative."""
    compared: int = 0
    """Ticks of sending links that were looked at."""


def rate_drift(record: RunRecord, planned: Sequence[Event]) -> RateDrift:
    """Compare the recorded timeline with the last plan of every round.

    A tick counts if it was in force at a moment between the server's word from the emulator that
    the plan's powers are, and the arrival of the round's last packet. Late ticks were in force later
    than the timeline says, so moments are those of the readings that are taken at every tick.

    Args:
        record: of the run.
        planned: the ``round_planned`` events, in their order.

    """
    schedule, achieved = record.schedule, record.achieved
    if schedule is None or achieved is None:
        return RateDrift()
    ticks, first_rows = np.unique(achieved.tick, return_index=True)
    mono_s = achieved.mono_s[first_rows]
    rate_bps = schedule.column("rate_up_bps")
    ends_s = _last_arrivals_s(record)
    gaps = []
    for version, plan in {int(number(event, "version")): event for event in planned}.items():
        if version not in ends_s:
            continue
        devices = np.array(plan["devices"], dtype=np.int64)
        sending = np.array(plan["coefficient"], dtype=np.float64) > 0
        planned_bps = np.array(plan["rate_bps"], dtype=np.float64)[sending]
        during = (mono_s >= number(plan, "mono_s")) & (mono_s <= ends_s[version])
        in_force = rate_bps[np.ix_(ticks[during & (ticks < schedule.ticks)], devices[sending])]
        gaps.append(np.abs(in_force / planned_bps - 1).ravel())
    found = np.concatenate(gaps) if gaps else np.zeros(0)
    return RateDrift(float(found.max()), len(found)) if len(found) else RateDrift()


def _last_arrivals_s(record: RunRecord) -> dict[int, float]:
    """Return by version when the last packet of the updates that build upon it came."""
    found: dict[int, float] = {}
    for event in record.of("server", "upload_complete"):
        if event["last_mono_s"] is not None:
            version = int(number(event, "base_version"))
            found[version] = max(found.get(version, 0.0), number(event, "last_mono_s"))
    return found
