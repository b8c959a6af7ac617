"""Each task's part of the summary: what was learned, when, and for how many bytes."""

import numpy as np

from fadelab.results.ledger import Ledger
from fadelab.results.record import Event, RunRecord, number
from fadelab.results.schema import (
    CurvePoint,
    Staleness,
    TaskBaseline,
    TaskResult,
    UpdateCounts,
)
from fadelab.results.task_energy import task_energy


def task_results(record: RunRecord, ledger: Ledger) -> dict[str, TaskResult]:
    """Return the result of every task of the run."""
    return {name: _result(record, ledger, name) for name in record.experiment.learning}


def _result(record: RunRecord, ledger: Ledger, name: str) -> TaskResult:
    start_mono_s = record.start_mono_s or 0.0
    published = {0: 0.0}
    for event in record.of("server", "version_published"):
        if event["task"] == name:
            version = int(number(event, "version"))
            published[version] = number(event, "published_mono_s") - start_mono_s
    wire = record.of("emulator", "wire")
    times = [number(event, "counted_mono_s") - start_mono_s for event in wire]
    totals = [number(event, "up_bytes") for event in wire]
    spent_s, spent_j = task_energy(record, name)
    curve = []
    for event in record.of("server", "validation"):
        # A diverged model has no metric and no place on the curve; it still counts as a version.
        if event["task"] != name or event["metric"] is None:
            continue
        t_s = published.get(int(number(event, "version")), 0.0)
        curve.append(
            CurvePoint(
                t_s=round(t_s, 6),
                version=int(number(event, "version")),
                value=number(event, "metric"),
                loss=None if event["loss"] is None else number(event, "loss"),
                wire_up_bytes=round(float(np.interp(t_s, times, totals))) if times else 0,
                energy_j=float(spent_j[np.searchsorted(spent_s, t_s, side="right") - 1]),
            )
        )
    curve.sort(key=lambda point: point.version)
    values = [point.value for point in curve]
    metric = record.experiment.learning[name].task.metric
    complete = _of_task(record, "server", "upload_complete", name)
    return TaskResult(
        metric=metric.name,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        baseline=_baseline(record, name),
        final=values[-1] if values else None,
        best=metric.best(values) if values else None,
        versions=max(published),
        curve=curve,
        rounds=ledger.rounds(name),
        packets=ledger.task_packets(name),
        updates=_updates(record, name, complete),
        staleness=Staleness(
            versions=[int(number(event, "staleness_versions")) for event in complete],
            seconds=[number(event, "staleness_s") for event in complete],
        ),
        energy_j=float(spent_j[-1]),
    )


def _of_task(record: RunRecord, role: str, event: str, task: str) -> list[Event]:
    return [found for found in record.of(role, event) if found.get("task") == task]


def _updates(record: RunRecord, task: str, complete: list[Event]) -> UpdateCounts:
    started = len(_of_task(record, "agent", "plan", task))
    partial = sum(
        number(event, "packets") > 0
        for name in ("upload_partial", "upload_abandoned")
        for event in _of_task(record, "server", name, task)
    )
    return UpdateCounts(
        started=started,
        complete=len(complete),
        partial=partial,
        lost=max(0, started - len(complete) - partial),
    )


def _baseline(record: RunRecord, name: str) -> TaskBaseline | None:
    for event in record.of("validator", "baseline"):
        if event["task"] == name:
            return TaskBaseline(name=str(event["name"]), value=number(event, "metric"))
    return None
