"""What links were programmed to carry and what they carried, over time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab.results.record import RunRecord
from fadelab.results.timeline import Programmed
from fadelab_emulation.achieved import Achieved

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ThroughputDirection:
    """One direction of all links in emulated time; arrays have shape ``(steps, devices)``."""

    programmed_bps: FloatArray
    """Mean over a step, in which a closed link counts 0; NaN where it was closed throughout."""
    achieved_bps: FloatArray
    """Layer-2 bits that left the shaper; NaN where readings cover less than half of a step."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Programmed rate and achieved throughput of every link, in steps of equal length."""

    edges_s: FloatArray
    """Where steps begin and end, in emulated seconds; shape ``(steps + 1,)``."""
    up: ThroughputDirection
    down: ThroughputDirection


def throughput(record: RunRecord, devices: int, at_most: int) -> Throughput | None:
    """Return both rates over the run in at most so many steps; None without readings.

    A step is a whole number of ticks. Links that are read in turns have fewer readings than there
    are ticks: between two of them what they sent is spread evenly.
    """
    readings, start_s = record.readings(), record.start_mono_s
    if record.schedule is None or start_s is None or not readings:
        return None
    programmed = Programmed.of(record, devices)
    ticks = int(np.searchsorted(record.schedule.t_s, record.duration_s))
    length = max(1, -(-ticks // at_most))
    first_ticks = np.arange(0, ticks - length + 1, length)
    if not len(first_ticks):
        return None
    edges_s = np.append(first_ticks, first_ticks[-1] + length) * programmed.tick_s
    directions = [
        ThroughputDirection(
            programmed_bps=_mean_bps(programmed.direction(name).open_bps, first_ticks, length),
            achieved_bps=np.stack(
                [_achieved_bps(readings.get(d), name, start_s, edges_s) for d in range(devices)],
                axis=1,
            ),
        )
        for name in ("up", "down")
    ]
    return Throughput(edges_s, *directions)


def _mean_bps(open_bps: FloatArray, first_ticks: NDArray[np.intp], length: int) -> FloatArray:
    kept = open_bps[: first_ticks[-1] + length]
    mean: FloatArray = np.add.reduceat(kept, first_ticks, axis=0) / length
    return np.where(mean > 0, mean, np.nan)


def _achieved_bps(
    readings: Achieved | None, name: str, start_s: float, edges_s: FloatArray
) -> FloatArray:
    if readings is None:
        return np.full(len(edges_s) - 1, np.nan)
    t_s = readings.mono_s - start_s
    sent_bits = 8.0 * readings.rows[f"{name}_sent_bytes"].astype(np.float64)
    known_s = np.clip(edges_s, t_s[0], t_s[-1])
    bits = np.diff(np.interp(known_s, t_s, sent_bits))
    covered_s = np.diff(known_s)
    achieved = np.full(len(covered_s), np.nan)
    np.divide(bits, covered_s, out=achieved, where=covered_s >= np.diff(edges_s) / 2)
    return achieved
