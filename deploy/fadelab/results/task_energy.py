"""What each task has cost by each moment, from measured times."""

import numpy as np
from numpy.typing import NDArray

from fadelab.results.periods import ended_periods
from fadelab.results.record import RunRecord, number

FloatArray = NDArray[np.float64]

_COSTS = (
    ("trained", "compute_j"),
    ("upload_ended", "uplink_j"),
    ("model_received", "downlink_j"),
)


def task_energy(record: RunRecord, task: str) -> tuple[FloatArray, FloatArray]:
    """Return times in emulated seconds, rising, and the joules that were spent by then.

    Joules are those of all devices for computing and for transfers in both directions: of local
    periods as metered, or of single trainings and transfers where devices do not report periods.
    """
    spent = [
        (one.end_s, one.metered.compute + one.metered.uplink + one.metered.downlink)
        for one in ended_periods(record)
        if one.task == task
    ] or _of_events(record, task)
    spent.sort()
    times_s = np.array([0.0, *(t_s for t_s, _ in spent)])
    return times_s, np.cumsum([0.0, *(joules for _, joules in spent)])


def _of_events(record: RunRecord, task: str) -> list[tuple[float, float]]:
    start_s = record.start_mono_s or 0.0
    return [
        (max(0.0, number(event, "mono_s") - start_s), number(event, key))
        for name, key in _COSTS
        for event in record.of("agent", name)
        if event.get("task") == task
    ]
