"""Synthetic runs of every shape, from which reports are made."""

from dataclasses import replace
from typing import TypeVar

import numpy as np

from fadelab.experiment import ValidityConfig
from fadelab.report.model import Run, ScheduleView
from fadelab.results import schema
from fadelab.results.ledger import add_ledgers
from fadelab.results.throughput import Throughput, ThroughputDirection
from fadelab.twin.schema import (
    DecisionReplay,
    TwinFigures,
    TwinPair,
    TwinResult,
    TwinRun,
    UploadDuration,
    UploadDurations,
)

Counts = TypeVar("Counts", schema.UpdateCounts, schema.Joules, schema.Connectivity)

BOUNDS = ValidityConfig(rate_ratio=(0.95, 1.05))
DURATION_S = 60.0
TICKS = 600
RADIUS_M = 120.0
AREA_M = (400.0, 400.0)
ORACLE = {"oracle": True, "time_scale": 10.0}
NO_INTERVALS = schema.Connectivity(open_passed=0, open_stuck=0, closed_silent=0, closed_passed=0)


def make_schedule(names: list[str], rng: np.random.Generator) -> ScheduleView:
    devices = len(names)
    t_s = np.arange(TICKS) * DURATION_S / TICKS
    turns = rng.uniform(20, 380, (2, 12, devices))
    grid = np.linspace(0, DURATION_S, 12)
    x_m, y_m = (
        np.stack([np.interp(t_s, grid, axis[:, i]) for i in range(devices)], axis=1)
        for axis in turns
    )
    distance_m = np.hypot(x_m - 200, y_m - 200)
    rate_bps = 2e7 * np.log2(1 + 1e6 / np.maximum(distance_m, 5.0) ** 2.4)
    return ScheduleView(
        device_ids=tuple(names),
        t_s=t_s,
        x_m=x_m,
        y_m=y_m,
        rate_up_bps=rate_bps * rng.uniform(0.2, 1.0, rate_bps.shape),
        rate_down_bps=2 * rate_bps,
        is_open=distance_m < RADIUS_M,
        sites_m=np.array([[200.0, 200.0]]),
        radius_m=RADIUS_M,
        area_m=AREA_M,
    )


def make_direction(rng: np.random.Generator) -> schema.DirectionBytes:
    payload = int(rng.integers(1_000_000, 6_000_000))
    parts = {
        "payload": payload,
        "packet_headers": payload // 400,
        "framing": payload // 100,
        "undelivered": 0,
        "retransmitted": int(rng.integers(0, payload // 9)),
        "ip_headers": payload // 25,
        "ethernet": payload // 90,
        "probes": 0,
    }
    residual, waiting = int(rng.integers(-900, 900)), 3_028
    wire = sum(parts.values()) + residual - waiting
    return schema.DirectionBytes(
        **parts,
        waiting=waiting,
        residual=residual,
        residual_percent=100 * residual / wire,
        wire=wire,
        device_end=wire,
    )


def make_packets(ledger: schema.ByteLedger) -> list[schema.DevicePackets]:
    return [
        schema.DevicePackets(
            direction=direction,
            task="digits",
            packet_class=name,
            packets=way.packet_headers // 40,
            payload=way.payload,
            headers=way.packet_headers,
        )
        for direction, name, way in (("up", "update", ledger.up), ("down", "model", ledger.down))
    ]


def make_link(rng: np.random.Generator) -> schema.LinkFidelity:
    ratio = float(rng.normal(1.0, 0.006))
    programmed_bps = float(rng.uniform(2e6, 6e7))
    return schema.LinkFidelity(
        programmed_bytes=1e6,
        achieved_bytes=int(1e6 * ratio),
        stretches=4,
        ratio=ratio,
        programmed_goodput_bps=programmed_bps,
        achieved_goodput_bps=programmed_bps * float(rng.uniform(0.85, 0.95)),
        leaked_packets=0,
        connectivity=schema.Connectivity(
            open_passed=120, open_stuck=0, closed_silent=80, closed_passed=0
        ),
        loss=make_loss(rng),
        delay=make_delay(rng),
    )


def make_loss(rng: np.random.Generator) -> schema.LossFidelity:
    arrived = int(rng.integers(2_000, 9_000))
    lost, expected = int(rng.binomial(arrived, 0.02)), 0.02 * arrived
    deviation = (expected * 0.98) ** 0.5
    return schema.LossFidelity(
        arrived=arrived, lost=lost, expected=expected, z=(lost - expected) / deviation
    )


def make_delay(rng: np.random.Generator) -> schema.DelayFidelity:
    error_ms = float(rng.normal(0.05, 0.05))
    return schema.DelayFidelity(
        programmed_ms=25.0,
        achieved_ms=25.0 + error_ms,
        error_ms=error_ms,
        jitter_ms=0.0,
        transmission_ms=0.02,
        probes=31,
    )


def make_links(calibrated: int = 4) -> schema.Links:
    return schema.Links(
        backend="netem",
        variant="netem/cbpf",
        why="the cheapest that this machine has for rates and contact windows, delay",
        passed_over=["lite/cbpf: cannot do delay"],
        window="hold",
        loss_is_seeded=False,
        time_scale=1.0,
        oracle=False,
        calibration=[
            schema.LinkCalibration(
                device=device,
                direction=direction,
                programmed_bps=rate_bps,
                achieved_bps=1.001 * rate_bps,
                programmed_delay_ms=25.0,
                jitter_ms=0.0,
                achieved_delay_ms=25.07,
                transmission_ms=496.0 / rate_bps,
                within_bounds=True,
            )
            for device, rate_bps in enumerate(np.geomspace(1e6, 4e7, calibrated).tolist())
            for direction in ("up", "down")
        ],
    )


def make_throughput(schedule: ScheduleView, rng: np.random.Generator) -> Throughput:
    """Links carry what is programmed in every second stretch of their open time, less a little."""
    steps = TICKS // 5
    is_open = schedule.is_open[::5].astype(float)
    is_busy = (np.arange(steps) // 9 % 2)[:, None] * rng.uniform(0.9, 1.0, is_open.shape)

    def direction(rate_bps: np.ndarray) -> ThroughputDirection:
        programmed = rate_bps[::5] * is_open
        achieved = programmed * is_busy
        return ThroughputDirection(np.where(programmed > 0, programmed, np.nan), achieved)

    edges_s = np.linspace(0, DURATION_S, steps + 1)
    return Throughput(edges_s, direction(schedule.rate_up_bps), direction(schedule.rate_down_bps))


def make_contacts(is_open: np.ndarray, t_s: np.ndarray) -> list[schema.Contact]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_open.astype(int), [0]])))
    ends = np.append(t_s, DURATION_S)
    return [
        schema.Contact(start_s=float(ends[first]), end_s=float(ends[last]))
        for first, last in edges.reshape(-1, 2)
    ]


def make_device(contacts: list[schema.Contact], rng: np.random.Generator) -> schema.DeviceResult:
    updates = 2 + 3 * len(contacts)
    ledger = schema.ByteLedger(up=make_direction(rng), down=make_direction(rng), connections=2)
    return schema.DeviceResult(
        bytes=ledger,
        packets=make_packets(ledger),
        updates=schema.UpdateCounts(started=updates, complete=updates - 1, partial=1, lost=0),
        staleness=schema.Staleness(
            versions=[int(v) for v in rng.poisson(4, updates)],
            seconds=[float(v) for v in rng.gamma(2.0, 1.5, updates)],
        ),
        contacts=contacts,
        up=make_link(rng),
        down=make_link(rng),
        resume_ms=[float(v) for v in rng.gamma(4.0, 4.0, max(0, len(contacts) - 1))],
        joules=schema.Joules(compute=1.2, uplink=0.4, downlink=0.1),
        join_s=float(rng.uniform(2.0, 3.5)),
        private_memory_mib=float(rng.normal(6.0, 0.4)),
    )


def add(rows: list[Counts]) -> Counts:
    kind = type(rows[0])
    return kind(**{name: sum(getattr(row, name) for row in rows) for name in kind.model_fields})


def make_totals(devices: list[schema.DeviceResult]) -> schema.Totals:
    resume_ms = [time for device in devices for time in device.resume_ms]
    return schema.Totals(
        bytes=add_ledgers(device.bytes for device in devices),
        updates=add([device.updates for device in devices]),
        staleness=schema.Staleness(
            versions=[v for device in devices for v in device.staleness.versions],
            seconds=[v for device in devices for v in device.staleness.seconds],
        ),
        leaked_packets=sum(d.up.leaked_packets + d.down.leaked_packets for d in devices),
        connectivity=schema.ConnectivityTotals(
            up=add([d.up.connectivity or NO_INTERVALS for d in devices]),
            down=add([d.down.connectivity or NO_INTERVALS for d in devices]),
        ),
        resume_p95_ms=float(np.percentile(resume_ms, 95)) if resume_ms else None,
        joules=add([device.joules for device in devices]),
    )


def make_task(wire_up_bytes: int, points: int = 40) -> schema.TaskResult:
    progress = np.linspace(0, 1, points)
    curve = [
        schema.CurvePoint(
            t_s=float(DURATION_S * p),
            version=version,
            value=float(0.1 + 0.83 * (1 - np.exp(-6 * p))),
            loss=float(2.3 * np.exp(-3 * p) + 0.2),
            wire_up_bytes=int(wire_up_bytes * p),
        )
        for version, p in enumerate(progress)
    ]
    final = curve[-1].value if curve else None
    return schema.TaskResult(
        metric="accuracy",
        higher_is_better=True,
        final=final,
        best=final,
        versions=max(0, points - 1),
        curve=curve,
        rounds=[],
    )


def make_run(devices: int = 8, *, names: list[str] | None = None, seed: int = 1) -> Run:
    """Build a plausible run: devices cross the coverage circle of one base station."""
    rng = np.random.default_rng(seed)
    names = names or [f"device-{index}" for index in range(devices)]
    schedule = make_schedule(names, rng)
    results = {
        name: make_device(make_contacts(schedule.is_open[:, column], schedule.t_s), rng)
        for column, name in enumerate(names)
    }
    total = make_totals(list(results.values()))
    summary = schema.Summary(
        name="Quickstart",
        valid=True,
        invalid_reasons=[],
        links=make_links(),
        duration_s=DURATION_S,
        wall_s=64.2,
        tasks={"digits": make_task(total.bytes.up.wire)},
        devices=results,
        total=total,
        lateness=schema.Lateness(ticks=TICKS, p50_ms=0.4, p99_ms=3.2, max_ms=7.9),
        start_up=schema.StartUp(
            links_s=0.4, agents_forked_s=1.9, all_joined_s=3.6, median_private_memory_mib=6.0
        ),
    )
    manifest = {"back_end": "kernel-lite", "seed": seed, "experiment": {"devices": {"count": 8}}}
    return Run(summary, manifest, schedule, make_throughput(schedule, rng), BOUNDS)


def change(run: Run, **fields: object) -> Run:
    return replace(run, summary=run.summary.model_copy(update=fields))


def change_devices(run: Run, **fields: object) -> Run:
    devices = {
        name: device.model_copy(update=fields) for name, device in run.summary.devices.items()
    }
    return change(run, devices=devices, total=make_totals(list(devices.values())))


def no_contacts() -> Run:
    run = with_links(
        make_run(4), ratio=None, programmed_goodput_bps=None, achieved_goodput_bps=None
    )
    nothing = schema.Staleness(versions=[], seconds=[])
    run = change_devices(
        run, contacts=[], resume_ms=[], staleness=nothing, join_s=None, private_memory_mib=None
    )
    closed = replace(
        run.schedule, is_open=np.zeros((TICKS, 4), dtype=bool), radius_m=None, area_m=None
    )
    return replace(run, schedule=closed)


def with_links(run: Run, *, both: bool = True, **fields: object) -> Run:
    link = make_link(np.random.default_rng(0)).model_copy(update=fields)
    return change_devices(run, up=link, down=link) if both else change_devices(run, up=link)


def empty_schedule(names: tuple[str, ...], ticks: int) -> ScheduleView:
    none = np.zeros((ticks, len(names)))
    return ScheduleView(
        names,
        np.arange(float(ticks)),
        none,
        none,
        none,
        none,
        none > 0,
        np.zeros((1, 2)),
        None,
        None,
    )


def no_schedule() -> Run:
    run = make_run(3)
    return replace(run, schedule=empty_schedule(tuple(run.devices), 0), throughput=None)


def no_devices() -> Run:
    run = make_run(1)
    run = change(change_devices(run, contacts=[]), devices={}, tasks={}, duration_s=0.0)
    return replace(run, manifest={}, schedule=empty_schedule((), 10), throughput=None)


def not_valid() -> Run:
    run = with_links(make_run(8), both=False, ratio=0.62, leaked_packets=7)
    reasons = ["device-3's uplink let 7 packets through while it was closed.", "word " * 300]
    return change(run, valid=False, invalid_reasons=reasons)


def no_proof() -> Run:
    """A run of an old version: none of the link proofs, and no back-end named."""
    run = with_links(imported_trace(), connectivity=None, loss=None, delay=None)
    links = make_links(0).model_copy(update={"backend": None, "variant": None, "why": None})
    total = run.summary.total.model_copy(update={"connectivity": None})
    return replace(change(run, links=links, total=total), throughput=None)


def oracle() -> Run:
    """Faster than real time, and devices knew the future."""
    return change(make_run(2), links=make_links().model_copy(update=ORACLE))


def disobedient() -> Run:
    """Everything that can be marked is."""
    run = with_links(
        make_run(2),
        connectivity=schema.Connectivity(
            open_passed=50, open_stuck=7, closed_silent=30, closed_passed=3
        ),
        loss=schema.LossFidelity(arrived=5000, lost=200, expected=100.0, z=10.1),
        delay=make_delay(np.random.default_rng(0)).model_copy(update={"error_ms": 4.0}),
    )
    slow = (
        make_links()
        .calibration[0]
        .model_copy(update={"achieved_bps": 7e5, "achieved_delay_ms": None, "within_bounds": False})
    )
    return change(run, links=make_links().model_copy(update={"calibration": [slow]}))


def imported_trace() -> Run:
    run = make_run(2)
    nowhere = np.zeros((TICKS, 2))
    schedule = replace(
        run.schedule, x_m=nowhere, y_m=nowhere, sites_m=np.zeros((0, 2)), radius_m=None
    )
    return replace(run, schedule=schedule)


def cell_free() -> Run:
    run = make_run(2)
    sites_m = np.random.default_rng(4).uniform(0, 400, (64, 2))
    return replace(run, schedule=replace(run.schedule, sites_m=sites_m, radius_m=None))


def static_device() -> Run:
    run = make_run(1)
    still = np.full((TICKS, 1), 100.0)
    schedule = replace(
        run.schedule, x_m=still, y_m=still, rate_up_bps=5e4 * still, rate_down_bps=5e4 * still,
        is_open=still > 0, sites_m=np.array([[100.0, 100.0]]), radius_m=None, area_m=None,
    )  # fmt: skip
    always = [schema.Contact(start_s=0.0, end_s=DURATION_S)]
    return replace(change_devices(run, contacts=always, resume_ms=[12.0]), schedule=schedule)


def make_twin(devices: int, uploads: int = 30) -> TwinResult:
    rng = np.random.default_rng(devices)
    durations = [
        UploadDuration(
            device=i % devices,
            start_s=float(i),
            wire_packets=int(rng.integers(5, 300)),
            measured_s=2.05,
            arrived_s=2.01,
            formula_s=2.0,
        )
        for i in range(uploads)
    ]
    pairs = {
        f"device-{i}": TwinPair(sockets=make_twin_figures(rng), twin=make_twin_figures(rng))
        for i in range(devices)
    }
    return TwinResult(
        decisions=DecisionReplay(replayed=40, incomplete=0, mismatches=0, mismatched=[]),
        durations=UploadDurations(
            least_packets=50,
            compared=uploads,
            median_deviation=0.025 if uploads else None,
            median_ratio=1.025 if uploads else None,
            median_answer_s=0.04 if uploads else None,
            uploads=durations,
        ),
        run=TwinRun(
            total=TwinPair(sockets=make_twin_figures(rng), twin=make_twin_figures(rng)),
            devices=pairs,
        ),
    )


def make_twin_figures(rng: np.random.Generator) -> TwinFigures:
    return TwinFigures(
        contacts=7,
        skipped=1,
        sent=5,
        acknowledged=4,
        k_keep=float(rng.uniform(1e3, 1e4)),
        staleness=None if rng.random() < 0.2 else 2.5,
        energy_j=float(rng.uniform(0.1, 1.0)),
        upload_s=4.0,
    )
