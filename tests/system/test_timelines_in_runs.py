"""Whole runs whose links follow a recording, run faster than the wall, or have delays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.system.commands import Ended
from tests.system.conftest import ShortRun

from fadelab.local.trial import attempt
from fadelab_emulation.backends.choice import Need, Variant
from fadelab_emulation.window import WindowMode

Run = Callable[..., Ended]

SMALL = """
name: small
duration_s: {duration_s}
devices: {{count: {devices}}}
task: {{name: digits, model: {{kind: logistic}}}}
partition: {{kind: iid}}
training: {{local_steps: 10, batch_size: 16, learning_rate: 0.5}}
method: {{name: fedasync, alpha: 0.4}}
radio:
{radio}
"""


def experiment(folder: Path, radio: str, duration_s: float, devices: int = 4) -> Path:
    path = folder / "small.yaml"
    path.write_text(SMALL.format(duration_s=duration_s, radio=radio, devices=devices))
    return path


def ticks_of(run_dir: Path) -> bytes:
    """Return a recording without its header."""
    return (run_dir / "links.schedule").read_bytes().partition(b"\n")[2]


def test_a_replayed_run_has_the_links_of_the_recorded_one(
    run: Run, short_run: ShortRun, tmp_path: Path
) -> None:
    recorded = short_run.ended.run_dir
    replay = f"  timeline: {{kind: replay, path: {recorded / 'links.schedule'}}}"
    replayed = run("replayed", experiment=experiment(tmp_path, replay, 3, devices=8))
    assert replayed.code == 0, replayed.output
    first, second = ticks_of(recorded), ticks_of(replayed.run_dir)
    common = min(len(first), len(second))
    assert common > 1000
    assert first[:common] == second[:common]


def test_a_run_faster_than_the_wall_is_as_valid(run: Run) -> None:
    ended = run("fast", "duration_s=24", "radio.time_scale=4", "devices.count=4")
    assert ended.code == 0, ended.output
    summary: Any = ended.summary
    assert summary["duration_s"] == pytest.approx(24, abs=1.0)
    assert summary["wall_s"] - summary["start_up"]["all_joined_s"] < 20
    assert summary["tasks"]["digits"]["final"] > 0.5


def test_delays_are_there_and_are_measured(run: Run, tmp_path: Path) -> None:
    needs = frozenset({Need.DELAY})
    problems = {
        variant: attempt(variant, needs, WindowMode.HOLD)
        for variant in (Variant.NETEM_CBPF, Variant.RELAY)
    }
    if all(problems.values()):
        pytest.skip(f"no back-end with delays here: {problems}")
    delayed = experiment(
        tmp_path,
        "  mobility: {kind: static, placement: {kind: uniform}}\n"
        "  rate: {kind: fixed, rate_up_bps: 5.0e+6, rate_down_bps: 5.0e+6}\n"
        "  delay_up_s: 0.04\n"
        "  delay_down_s: 0.02",
        5,
    )
    ended = run("delayed", experiment=delayed)
    assert ended.code == 0, ended.output
    summary: Any = ended.summary
    for device in summary["devices"].values():
        for direction, programmed_ms in (("up", 40.0), ("down", 20.0)):
            delay = device[direction]["delay"]
            assert delay["programmed_ms"] == pytest.approx(programmed_ms)
            assert delay["achieved_ms"] == pytest.approx(programmed_ms, rel=0.05, abs=2.0)
            assert delay["probes"] >= 1
