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

    Ticks count from the moment at which the plan's powers were in force, as the emulator had told
    the server, to the arrival of the round's last packet.

    Args:
        record: of the run.
        planned: the ``round_planned`` events, in their order.

    """
    schedule, start_s = record.schedule, record.start_mono_s
    if schedule is None or start_s is None:
        return RateDrift()
    rate_bps = schedule.column("rate_up_bps")
    ends_s = _last_arrivals_s(record)
    gaps = []
    for version, plan in {int(number(event, "version")): event for event in planned}.items():
        if version not in ends_s:
            continue
        devices = np.array(plan["devices"], dtype=np.int64)
        sending = np.array(plan["coefficient"], dtype=np.float64) > 0
        planned_bps = np.array(plan["rate_bps"], dtype=np.float64)[sending]
        first = int(np.ceil((number(plan, "mono_s") - start_s) / schedule.tick_s))
        last = int(np.floor((ends_s[version] - start_s) / schedule.tick_s))
        in_force = rate_bps[first:last, devices[sending]]
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
