"""Rounds whose powers the server decided: planned against measured, upload by upload.

Planned times and energies are the formulas' for the wire bits that devices reported, on links no
slower than their floor. An upload is measured from the moment at which its device heard what it was
given to the arrival of its last packet; its energy is the power in force times the time from which
it was in force. The two accounts are never mixed.
"""

from collections.abc import Iterable
from itertools import groupby
from statistics import median
from typing import Literal

from fadelab.results.record import Event, RunRecord, number
from fadelab.results.round_rates import rate_drift
from fadelab.results.round_schema import PlannedRound, RoundPlans
from fadelab_agent.wire_size import full_precision_wire_bits

_LONG_BITS = 50 * 1514 * 8
"""Fifty full frames: what is shorter says more of bursts and of waking up than of the link."""
_AS_LONG = 0.95
"""Plans within this share of the longest are the longest: many power controls make them all equal."""
_Key = tuple[int, int]


def round_plans(record: RunRecord, wire_up_bytes: int) -> RoundPlans | None:
    """Return what became of the plans; None if the server planned no rounds.

    Args:
        record: of the run.
        wire_up_bytes: layer-2 bytes that all uplinks carried.

    """
    planned = record.of("server", "round_planned")
    if not planned:
        return None
    latency_s, energy_j = _latencies_s(record), _energies_j(record)
    costs = {
        int(number(event, "version")) - 1: event for event in record.of("server", "round_cost")
    }
    by_version = groupby(planned, key=lambda event: int(number(event, "version")))
    # Where powers were decided anew within a round, its first plan is what was predicted.
    rounds = [
        _round(version, next(plans), latency_s, energy_j, costs.get(version))
        for version, plans in by_version
    ]
    pairs = [pair for one in rounds for pair in _pairs(one)]
    ratios = [measured_s / planned_s for _, planned_s, measured_s in pairs]
    long = [measured / plan for bits, plan, measured in pairs if bits > _LONG_BITS]
    judged = [one for one in rounds if one.slowest_as_planned is not None]
    drift = rate_drift(record, planned)
    bits = [own for one in rounds for own in _due_bits(one)]
    entries = int(max(float(str(event.get("entries", 0))) for event in planned))
    full_bits = full_precision_wire_bits(
        entries, max_payload_bytes=record.experiment.transport.max_payload_bytes
    )
    end = record.last("server", "run_stopped") or {}
    last = record.last("server", "round_cost") or {}
    return RoundPlans(
        power_control=str(planned[0]["power_control"]),
        stop_reason=str(end.get("reason", "")),
        rounds=rounds,
        median_ratio=median(ratios) if ratios else None,
        long_uploads=len(long),
        median_ratio_of_long=median(long) if long else None,
        slowest_judged=len(judged),
        slowest_as_planned=sum(bool(one.slowest_as_planned) for one in judged),
        largest_rate_gap=max(number(event, "largest_rate_gap") for event in planned),
        largest_rate_drift=drift.largest if drift.compared else None,
        rates_compared=drift.compared,
        rounds_ended=len(costs),
        spent_budget=_spent_budget(record, last),
        planned_s=number(last, "planned_total_s"),
        planned_j=number(last, "planned_total_j"),
        measured_s=number(last, "measured_total_s"),
        measured_j=number(last, "measured_total_j"),
        nominal_share=_share(sum(bits), 32 * entries * len(bits)),
        wire_share=_share(8 * wire_up_bytes, full_bits * len(bits)),
        mean_bits_per_update=_mean(bits for one in rounds for bits in one.bits if bits),
        silenced=sum(len(one.silenced) for one in rounds),
    )


def _round(
    version: int,
    plan: Event,
    latency_s: dict[_Key, float],
    energy_j: dict[_Key, float],
    cost: Event | None,
) -> PlannedRound:
    devices = [int(device) for device in _numbers(plan, "devices")]
    coefficient, planned_s = _numbers(plan, "coefficient"), _numbers(plan, "upload_s")
    wire_bits = _numbers(plan, "wire_bits")
    measured_s = [latency_s.get((device, version)) for device in devices]
    sends = [power > 0 and bits > 0 for power, bits in zip(coefficient, wire_bits, strict=True)]
    complete = all(
        measured is not None for measured, send in zip(measured_s, sends, strict=True) if send
    )
    slowest = None
    if complete and any(sends):
        slowest = max(range(len(devices)), key=lambda at: (measured_s[at] or 0.0) * sends[at])
    return PlannedRound(
        version=version,
        devices=devices,
        bits=[int(bits) for bits in _numbers(plan, "bits")],
        wire_bits=[int(bits) for bits in wire_bits],
        coefficient=coefficient,
        rate_bps=_numbers(plan, "rate_bps"),
        planned_s=planned_s,
        measured_s=[
            measured if send else None for measured, send in zip(measured_s, sends, strict=True)
        ],
        planned_j=_numbers(plan, "upload_j"),
        measured_j=[energy_j.get((device, version)) for device in devices],
        round_planned_s=number(plan, "round_s"),
        round_planned_j=number(plan, "round_j"),
        round_measured_s=None if cost is None else number(cost, "measured_s"),
        round_measured_j=None if cost is None else number(cost, "measured_j"),
        slowest=None if slowest is None else devices[slowest],
        slowest_as_planned=(
            None if slowest is None else planned_s[slowest] >= _AS_LONG * max(planned_s)
        ),
        silenced=[
            device
            for device, bits, send in zip(devices, wire_bits, sends, strict=True)
            if bits and not send
        ],
        solve_s=number(plan, "solve_s"),
    )


def _due_bits(one: PlannedRound) -> list[int]:
    """Return nominal bits of the updates that were to be sent had their rule wanted it."""
    pairs = zip(one.devices, one.bits, strict=True)
    return [bits for device, bits in pairs if device not in one.silenced]


def _spent_budget(record: RunRecord, totals: Event) -> Literal["energy", "latency"] | None:
    allocation = record.experiment.method.pieces().allocation
    if allocation is None or not totals:
        return None
    budget = allocation.budget
    if (
        budget.energy_j is not None
        and number(totals, f"{budget.counts}_total_j") >= budget.energy_j
    ):
        return "energy"
    if (
        budget.latency_s is not None
        and number(totals, f"{budget.counts}_total_s") >= budget.latency_s
    ):
        return "latency"
    return None


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _pairs(one: PlannedRound) -> Iterable[tuple[int, float, float]]:
    """Yield wire bits, planned and measured seconds of every upload that arrived."""
    for bits, planned_s, measured_s in zip(
        one.wire_bits, one.planned_s, one.measured_s, strict=True
    ):
        if measured_s is not None and planned_s > 0:
            yield bits, planned_s, measured_s


def _latencies_s(record: RunRecord) -> dict[_Key, float]:
    """Return by device and version how long uploads took from the device's go-ahead."""
    begun = {
        (int(str(event["id"])), int(number(event, "update_id"))): number(event, "mono_s")
        for event in record.of("agent", "allotted")
    }
    found: dict[_Key, float] = {}
    for event in record.of("server", "upload_complete"):
        device = int(number(event, "device"))
        since_s = begun.get((device, int(number(event, "update_id"))))
        if since_s is not None and event["last_mono_s"] is not None:
            took_s = number(event, "last_mono_s") - since_s
            found[device, int(number(event, "base_version"))] = took_s
    return found


def _energies_j(record: RunRecord) -> dict[_Key, float]:
    return {
        (int(number(event, "device")), int(number(event, "version"))): number(event, "upload_j")
        for event in record.of("server", "upload_metered")
    }


def _numbers(event: Event, key: str) -> list[float]:
    values = event[key]
    assert isinstance(values, list)
    return [float(value) for value in values]


def _mean(values: Iterable[int]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
