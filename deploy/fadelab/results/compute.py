"""Compute a run's summary from its record."""

import statistics
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fadelab.results.connectivity import total as total_connectivity
from fadelab.results.contacts import contact_use
from fadelab.results.devices import device_results
from fadelab.results.ledger import Ledger, add_ledgers
from fadelab.results.links import links_result
from fadelab.results.periods import period_results
from fadelab.results.record import RunRecord, number
from fadelab.results.rounds import round_plans
from fadelab.results.schema import (
    ConnectivityTotals,
    DeviceResult,
    Joules,
    Lateness,
    Staleness,
    StartUp,
    Summary,
    Totals,
    UpdateCounts,
)
from fadelab.results.sp_fl import sp_fl_rounds
from fadelab.results.tasks import task_results
from fadelab.results.validity import invalid_reasons
from fadelab.twin.compute import formula_twin


def compute_summary(run_dir: Path) -> Summary:
    """Return the summary of a run directory, finished or not.

    Raises:
        FadelabError: USAGE, if it is no run directory.

    """
    record = RunRecord.load(run_dir)
    experiment = record.experiment
    ledger = Ledger(record, experiment.devices.count)
    devices = device_results(record, ledger, experiment.devices.count)
    tasks = task_results(record, ledger)
    total = _totals(devices.values())
    links = links_result(record)
    lateness = _lateness(record)
    periods = period_results(record)
    reasons = invalid_reasons(
        record,
        experiment.validity,
        links=links,
        tasks=tasks,
        devices=devices,
        total=total,
        lateness=lateness,
        periods=periods,
    )
    phases = {
        str(event["name"]): number(event, "since_command_s")
        for event in record.of("launcher", "phase")
    }
    memories = [d.private_memory_mib for d in devices.values() if d.private_memory_mib is not None]
    return Summary(
        name=experiment.name,
        valid=not reasons,
        invalid_reasons=reasons,
        links=links,
        duration_s=round(record.duration_s, 3),
        wall_s=round(_last_event_s(record), 3),
        tasks=tasks,
        devices=devices,
        total=total,
        lateness=lateness,
        start_up=StartUp(
            links_s=phases.get("links_ready", 0.0),
            agents_forked_s=phases.get("agents_forked", 0.0),
            all_joined_s=phases.get("all_joined", 0.0),
            median_private_memory_mib=statistics.median(memories) if memories else None,
        ),
        contacts=contact_use(record),
        sp_fl=sp_fl_rounds(record),
        rounds=round_plans(record, total.bytes.up.wire),
        periods=periods,
        twin=formula_twin(record),
    )


def _totals(devices: Iterable[DeviceResult]) -> Totals:
    found = list(devices)
    resumes = [ms for device in found for ms in device.resume_ms]
    return Totals(
        bytes=add_ledgers(device.bytes for device in found),
        updates=UpdateCounts(
            started=sum(d.updates.started for d in found),
            complete=sum(d.updates.complete for d in found),
            partial=sum(d.updates.partial for d in found),
            lost=sum(d.updates.lost for d in found),
        ),
        staleness=Staleness(
            versions=[v for device in found for v in device.staleness.versions],
            seconds=[s for device in found for s in device.staleness.seconds],
        ),
        leaked_packets=sum(d.up.leaked_packets + d.down.leaked_packets for d in found),
        connectivity=_connectivity(found),
        resume_p95_ms=float(np.percentile(resumes, 95)) if resumes else None,
        joules=Joules(
            compute=sum(d.joules.compute for d in found),
            uplink=sum(d.joules.uplink for d in found),
            downlink=sum(d.joules.downlink for d in found),
        ),
    )


def _connectivity(devices: list[DeviceResult]) -> ConnectivityTotals | None:
    up = [d.up.connectivity for d in devices if d.up.connectivity is not None]
    down = [d.down.connectivity for d in devices if d.down.connectivity is not None]
    if not up:
        return None
    return ConnectivityTotals(up=total_connectivity(up), down=total_connectivity(down))


def _lateness(record: RunRecord) -> Lateness:
    event = record.last("emulator", "lateness") or {}
    return Lateness(
        ticks=int(number(event, "ticks")),
        p50_ms=number(event, "p50_ms"),
        p99_ms=number(event, "p99_ms"),
        max_ms=number(event, "max_ms"),
    )


def _last_event_s(record: RunRecord) -> float:
    last = [events[-1] for (role, _), events in record.events.items() if role != "agent"]
    return max((record.since_command_s(event) for event in last), default=0.0)
