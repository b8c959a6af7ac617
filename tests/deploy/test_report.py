"""The report of synthetic runs of every size and shape."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from fadelab.experiment import ValidityConfig
from fadelab.report.coverage import field_map
from fadelab.report.devices import device_table
from fadelab.report.model import Run, ScheduleView
from fadelab.report.proof import proof
from fadelab.report.throughput import throughput
from fadelab.report.write import build_page, write_report
from fadelab.results import schema
from fadelab.results.throughput import Throughput, ThroughputDirection

Counts = TypeVar(
    "Counts", schema.DirectionBytes, schema.UpdateCounts, schema.Joules, schema.Connectivity
)

BOUNDS = ValidityConfig(rate_ratio=(0.95, 1.05))
DURATION_S = 60.0
TICKS = 600
RADIUS_M = 120.0
AREA_M = (400.0, 400.0)
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
    framing, retransmitted = payload // 16, int(rng.integers(0, payload // 9))
    return schema.DirectionBytes(
        payload=payload,
        framing=framing,
        retransmitted=retransmitted,
        wire=payload + framing + retransmitted,
    )


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
    return schema.DeviceResult(
        bytes=schema.ByteLedger(up=make_direction(rng), down=make_direction(rng)),
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
        bytes=schema.ByteLedger(
            up=add([device.bytes.up for device in devices]),
            down=add([device.bytes.down for device in devices]),
        ),
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


class Outline(HTMLParser):
    """Checks nesting; collects tags, attributes and visible text."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text.append(data)

    @property
    def visible(self) -> str:
        return " ".join(self.text)


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


CASES = {
    "1": lambda: make_run(1),
    "8": lambda: make_run(8),
    "33": lambda: make_run(33),
    "100": lambda: make_run(100),
    "1000": lambda: make_run(1000),
    "no curve": lambda: change(make_run(2), tasks={"digits": make_task(0, points=0)}),
    "one point": lambda: change(make_run(2), tasks={"digits": make_task(0, points=1)}),
    "two tasks": lambda: change(
        make_run(3), tasks={"digits": make_task(10**7), "mnist": make_task(10**7, points=500)}
    ),
    "no contacts": no_contacts,
    "no saturated ticks": lambda: with_links(make_run(8), ratio=None),
    "no saturated ticks, 100": lambda: with_links(make_run(100), ratio=None),
    "no goodput": lambda: with_links(
        make_run(100), programmed_goodput_bps=None, achieved_goodput_bps=None
    ),
    "no schedule": no_schedule,
    "no devices": no_devices,
    "not valid": not_valid,
    "static": static_device,
    "no proof": no_proof,
    "oracle": oracle,
    "disobedient": disobedient,
}
ORACLE = {"oracle": True, "time_scale": 10.0}
HOSTILE = "<script>alert('x')</script>&\"$\\frac{1}$"


@cache
def page_of(case: str) -> str:
    """Build a case's page once: charts take their time."""
    return build_page(CASES[case]())


@pytest.mark.parametrize("case", CASES)
def test_every_run_gives_one_self_contained_page(case: str) -> None:
    page = page_of(case)
    outline = Outline(page)
    assert len(page) < 3_000_000
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert not {"link", "img", "iframe", "object"} & set(outline.tags)
    assert outline.tags.count("script") == 1
    for _, name, value in outline.attributes:
        assert name != "src"
        if name in {"href", "xlink:href"}:
            assert value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"\b(nan|None|inf)\b", outline.visible)


@pytest.mark.parametrize("case", ["8", "100"])
def test_the_same_input_gives_the_same_bytes(case: str, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", CASES[case]())
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page_of(case)


def test_identifiers_are_unique_and_references_resolve() -> None:
    outline = Outline(page_of("two tasks"))
    identifiers = [value for _, name, value in outline.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers)) > 10

    targets = {
        target
        for _, _, value in outline.attributes
        for target in re.findall(r"(?:^|url\()#([^)]+)", value)
        if not re.fullmatch(r"[0-9a-fA-F]{6}", target)
    }
    assert targets == set(identifiers)


def test_eight_devices_are_named_in_charts_and_tables() -> None:
    run = make_run(8)
    page = page_of("8")
    for name in run.devices:
        in_charts = re.findall(rf"<text[^>]*>{name}</text>", page)
        assert len(in_charts) >= 4
        assert f"<td>{name}</td>" in page


def test_many_devices_are_cut_and_the_rest_counted() -> None:
    text = Outline(page_of("1000")).visible
    assert "… and 900 more in summary.json" in text


def test_devices_that_need_attention_are_listed_first() -> None:
    run = make_run(150)
    worst = run.devices["device-149"]
    broken = worst.model_copy(update={"up": worst.up.model_copy(update={"leaked_packets": 3})})
    table = device_table(change(run, devices={**run.devices, "device-149": broken}))
    first_name = re.search(r"<td>([^<]+)</td>", table)
    assert first_name is not None
    assert first_name[1] == "device-149"


def test_verdict_and_every_reason_are_shown() -> None:
    valid = Outline(page_of("8")).text
    assert "VALID" in valid
    assert "NOT VALID" not in valid

    run = not_valid()
    text = Outline(page_of("not valid")).text
    assert "NOT VALID" in text
    assert set(run.summary.invalid_reasons) <= set(text)


def test_names_and_reasons_are_text_and_never_markup() -> None:
    names = [HOSTILE, "</text></svg><b>", "Gerät 设备", "a\x07b", "x" * 200]
    run = make_run(names=names)
    run = change(run, valid=False, invalid_reasons=[HOSTILE], name=HOSTILE)
    run = replace(run, manifest={"experiment": {HOSTILE: HOSTILE}, HOSTILE: HOSTILE})
    page = build_page(run)
    outline = Outline(page)
    assert outline.tags.count("script") == 1
    assert outline.tags.count("b") == Outline(page_of("8")).tags.count("b")
    assert "alert('x')" not in page
    assert HOSTILE in outline.text
    assert "Gerät 设备" in outline.text
    assert "\x07" not in re.sub(r"<td>.*?</td>", "", page)


def test_the_schedule_refuses_arrays_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="is_open has shape"):
        replace(empty_schedule(("a", "b"), 5), is_open=np.zeros((5, 3), dtype=bool))


def test_only_writing_a_report_loads_matplotlib() -> None:
    code = "import sys, fadelab.report.model; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def text_of(card: str) -> str:
    return re.sub(r"\s+", " ", Outline(card).visible)


def test_the_proof_tells_back_end_matrix_loss_delay_and_calibration() -> None:
    text = text_of(proof(make_run(8)))
    assert "Back-end netem/cbpf: the cheapest that this machine has" in text
    assert "lite/cbpf: cannot do delay" in text
    # 8 devices of 120 open and 80 closed intervals in each direction.
    assert "uplinks open 960 0 0 % uplinks closed 0 640 0 %" in text
    assert "both open 1 920 0 0 % both closed 0 1 280 0 %" in text
    assert "11.696 11.708 0.100 %" in text


def test_what_is_not_allowed_is_marked_in_the_proof() -> None:
    marked = re.findall(r'<td class="(?:num )?bad"[^>]*>([^<]*)</td>', proof(disobedient()))
    # Connectivity of uplinks, downlinks and both; z and delay of four links; the calibration.
    assert marked[:6] == ["14", "6", "14", "6", "28", "12"]
    assert marked[6:10] == ["10.10"] * 4
    assert marked[10:14] == ["4.000"] * 4
    assert marked[14:] == ["-30.0\u202f%", "–", "no"]


def test_a_run_without_proof_says_so_in_sentences() -> None:
    text = text_of(proof(no_proof()))
    for sentence in (
        "The run ended before its links were made.",
        "The run recorded no readings of its links.",
        "Lost packets were not counted.",
        "No delay was programmed or timed.",
        "No link was measured before the run.",
    ):
        assert sentence in text


def test_an_oracle_and_a_time_scale_stand_on_the_first_screen() -> None:
    page = page_of("oracle")
    head = page[: page.index("Key figures")]
    assert "Oracle: devices knew the true future" in head
    assert "10 of them per second of the wall clock" in head.replace("\u202f", " ")
    assert "Oracle" not in page_of("8")


def test_throughput_is_drawn_per_link_while_there_is_room() -> None:
    few = text_of(throughput(make_run(8)))
    assert "uplink; at the right: top of each lane (Mbit/s)" in few
    assert "device-7" in few
    many = text_of(throughput(make_run(33)))
    assert "downlink, all links (Mbit/s)" in many
    assert "device-7" not in many


def test_a_trace_without_places_has_no_map_and_sites_are_all_drawn() -> None:
    assert "has no places" in text_of(field_map(imported_trace()))
    assert "base stations" in text_of(field_map(cell_free()))
