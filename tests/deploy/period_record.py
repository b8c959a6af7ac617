"""Local periods of a small run, written by hand: two devices, two tasks."""

from typing import Any

import yaml
from run_record import QUICKSTART, START_S, RunWriter, write_end, write_start

CAP = 2


def two_tasks(
    importance: float = 1.0, *, idle_pace: float = 1.0, active_pace: float = 1.0, seed: int = 1
) -> dict[str, Any]:
    """Return an experiment's settings: tasks digits, which drifts, and letters, by DMA-FL."""
    tree = yaml.safe_load(QUICKSTART.read_text())
    parts = {key: tree[key] for key in ("task", "partition", "training")}
    drift = {"kind": "rotation", "period_s": 1.0, "degrees_per_period": 5.0}
    paced = drift | {"idle_pace": idle_pace, "active_pace": active_pace}
    return dict.fromkeys(parts) | {
        "tasks": {"digits": parts | {"importance": importance, "drift": paced}, "letters": parts},
        "method": {"name": "dma_fl", "staleness_cap": CAP},
        "seed": seed,
    }


def ended(run: RunWriter, device: int, task: str, t_s: float, **fields: Any) -> None:
    """Write that a period of one second ended: it fetched and sent 100 kbit."""
    usual: dict[str, Any] = {
        "version": 0,
        "steps": 4,
        "batch": 16,
        "cpu_hz": 1e6,
        "idle_s": 0.25,
        "downlink_s": 0.05,
        "compute_s": 0.5,
        "compute_real_s": 0.1,
        "uplink_s": 0.2,
        "compute_j": 2.0,
        "uplink_j": 0.04,
        "downlink_bits": 100_000,
        "uplink_bits": 100_000,
    }
    run.write(f"agent-{device}", t_s, "period_ended", task=task, **usual | fields)


def stage(run: RunWriter, device: int, task: str, t_s: float, name: str) -> None:
    run.write(f"agent-{device}", t_s, "stage", task=task, stage=name)


def scheduled(run: RunWriter, device: int, task: str, version: int) -> None:
    run.write(
        "server",
        0.1,
        "scheduled",
        task=task,
        device=device,
        version=version,
        idle_s=0.25,
        steps=4,
        batch=16,
        cpu_hz=1e6,
        deadline_version=version + CAP,
    )


def bound(run: RunWriter, task: str, t_s: float, version: int, **fields: Any) -> None:
    terms = {name: 1.0 + place for place, name in enumerate("abcdef")}
    usual: dict[str, Any] = {"terms": terms, "total": 21.0}
    run.write("server", t_s, "bound", task=task, version=version, **usual | fields)


def applied(run: RunWriter, device: int, task: str, t_s: float, staleness: int) -> None:
    run.upload(
        "upload_complete",
        t_s,
        device,
        task=task,
        staleness_versions=staleness,
        staleness_s=0.5 * staleness,
    )


def write_periods(run: RunWriter) -> None:
    """Write a run of 3 s whose devices did not compute longer than emulated."""
    run.schedule()
    write_start(run)
    for device in range(2):
        run.account(device)
    scheduled(run, 0, "digits", 0)
    scheduled(run, 1, "letters", 0)
    scheduled(run, 0, "digits", 1)
    for device, task, fetched_s, sent_s in (
        (0, "digits", 0.2, 0.8),
        (0, "digits", 2.0, 2.7),
        (1, "letters", 2.0, 2.7),
    ):
        stage(run, device, task, fetched_s, "downlink")
        stage(run, device, task, fetched_s + 0.05, "compute")
        stage(run, device, task, sent_s, "uplink")
    ended(run, 0, "digits", 1.0)
    ended(run, 0, "digits", 2.9, version=1, steps=8, batch=32, compute_s=1.0, compute_j=4.0)
    ended(run, 1, "letters", 2.9, cpu_hz=3e6)
    applied(run, 0, "digits", 1.0, 0)
    applied(run, 0, "digits", 2.9, 2)
    applied(run, 1, "letters", 2.9, 1)
    bound(run, "digits", 1.0, 1)
    unbounded = {name: 1.0 + place for place, name in enumerate("abcdef")} | {"e": None}
    bound(run, "digits", 2.9, 2, terms=unbounded, total=None)
    published = {"version": 1, "published_mono_s": START_S + 2.9}
    run.write("server", 2.9, "version_published", task="letters", **published)
    write_end(run)
