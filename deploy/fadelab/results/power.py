"""What boards' own sensors measured, over the phases of each agent."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fadelab.results.record import Event, RunRecord, number
from fadelab.results.schema import MeasuredEnergy

FloatArray = NDArray[np.float64]
_Interval = tuple[float, float]


def measured_energy(record: RunRecord, device: int) -> MeasuredEnergy | None:
    """Return the energy that a device's sensor measured; None if its energy is the model's alone.

    The run's seconds in which no sample is near count as the straight line between their neighbours
    (the trapezoidal rule).
    """

    def own(name: str) -> list[Event]:
        return [e for e in record.of("agent", name) if str(e["id"]) == str(device)]

    sources = [event["source"] for event in own("power_source")]
    at_s, power_w = _samples(own("power"))
    begin_s = record.start_mono_s
    if not sources or sources[-1] is None or len(at_s) < 2 or begin_s is None:
        return None
    scale = record.experiment.radio.time_scale
    inside = (begin_s, begin_s + record.duration_s)
    trained = own("trained")
    spans = [max(number(event, "real_s"), number(event, "emulated_s")) for event in trained]
    ends = [number(event, "mono_s") for event in trained]
    total_j = energy_j(at_s, power_w, [inside]) / scale
    training = [(end_s - span_s, end_s) for end_s, span_s in zip(ends, spans, strict=True)]
    return MeasuredEnergy(
        source=str(sources[-1]),
        mean_w=total_j * scale / record.duration_s if record.duration_s else 0.0,
        total_j=total_j,
        training_j=energy_j(at_s, power_w, _within(training, inside)) / scale,
        uploads_j=energy_j(
            at_s, power_w, _within(_uploads(own("plan"), own("upload_ended")), inside)
        )
        / scale,
    )


def energy_j(at_s: FloatArray, power_w: FloatArray, intervals: Iterable[_Interval]) -> float:
    """Return the integral of the power over all intervals.

    Args:
        at_s: times of the samples, rising.
        power_w: what was measured then.
        intervals: beginnings and ends; what lies outside the samples counts nothing.

    """
    steps_j = 0.5 * (power_w[1:] + power_w[:-1]) * np.diff(at_s)
    upto_j = np.concatenate([np.zeros(1), np.cumsum(steps_j)])
    # Linear between samples: of one sampling interval, an interval gets its share.
    return sum(
        float(np.interp(end_s, at_s, upto_j) - np.interp(start_s, at_s, upto_j))
        for start_s, end_s in intervals
    )


def _samples(events: Sequence[Event]) -> tuple[FloatArray, FloatArray]:
    columns = [
        np.array(list(itertools.chain.from_iterable(_floats(event[key]) for event in events)))
        for key in ("at_mono_s", "power_w")
    ]
    order = np.argsort(columns[0], kind="stable")
    return columns[0][order], columns[1][order]


def _floats(value: object) -> list[float]:
    return [float(entry) for entry in value] if isinstance(value, list) else []


def _uploads(plans: Sequence[Event], ends: Sequence[Event]) -> list[_Interval]:
    began = {(str(e["task"]), number(e, "update_id")): number(e, "mono_s") for e in plans}
    return [
        (began[key], number(end, "mono_s"))
        for end in ends
        if (key := (str(end["task"]), number(end, "update_id"))) in began
    ]


def _within(intervals: Iterable[_Interval], bounds: _Interval) -> list[_Interval]:
    cut = ((max(start, bounds[0]), min(end, bounds[1])) for start, end in intervals)
    return [(start, end) for start, end in cut if start < end]
