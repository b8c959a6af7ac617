"""When each task of each device waited, downloaded, computed and uploaded."""

from collections import defaultdict
from dataclasses import dataclass

from fadelab.results.record import Event, RunRecord, number

STAGES = ("idle", "downlink", "compute", "uplink")
"""In the order of a local period; between periods a task has none."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one local period, in emulated seconds."""

    device: int
    task: str
    name: str
    start_s: float
    end_s: float


def stages_of(record: RunRecord) -> list[Stage]:
    """Return all stages of a run by device, task and time; none if devices reported none.

    A stage lasts until the same task's next one begins on the device, or the run ends.
    """
    if record.start_mono_s is None:
        return []
    begun: dict[tuple[int, str], list[Event]] = defaultdict(list)
    for event in record.of("agent", "stage"):
        begun[int(str(event["id"])), str(event["task"])].append(event)
    return [
        stage
        for (device, task), events in sorted(begun.items())
        for stage in _of_one(device, task, events, record.start_mono_s, record.duration_s)
    ]


def _of_one(
    device: int, task: str, events: list[Event], start_mono_s: float, duration_s: float
) -> list[Stage]:
    times_s = [number(event, "mono_s") - start_mono_s for event in events]
    found = []
    for event, start_s, next_s in zip(events, times_s, [*times_s[1:], duration_s], strict=True):
        begin_s, end_s = max(0.0, start_s), min(next_s, duration_s)
        if event["stage"] in STAGES and end_s > begin_s:
            found.append(Stage(device, task, str(event["stage"]), begin_s, end_s))
    return found
