"""Nothing stays on the machine, however a run ends."""

import json
import os
import signal
from pathlib import Path

from tests.system.commands import start, wait_for_line
from tests.system.conftest import ShortRun
from tests.system.machine_state import (
    MachineState,
    check_clean,
    descendants,
    name_of,
    wait_for_end,
)

FEW = "devices.count=3"


def test_after_a_normal_run(short_run: ShortRun) -> None:
    assert short_run.ended.code == 0, short_run.ended.output
    check_clean(short_run.before, short_run.after)


def test_after_an_interrupt(tmp_path: Path) -> None:
    before = MachineState.now()
    process = start(tmp_path / "run", "duration_s=60", FEW)
    wait_for_line(process, "the run has begun")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["valid"] is False
    assert any("interrupted" in reason for reason in summary["invalid_reasons"])
    assert (tmp_path / "run" / "report.html").exists()
    check_clean(before, MachineState.now())


def test_after_the_launcher_was_killed(tmp_path: Path) -> None:
    before = MachineState.now()
    process = start(tmp_path / "run", "duration_s=60")
    wait_for_line(process, "the run has begun")
    children = descendants(process.pid)
    assert len(children) > 10
    watched = [os.pidfd_open(pid) for pid in children]
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    for descriptor in watched:
        wait_for_end(descriptor)
    check_clean(before, MachineState.now())


def test_after_a_component_was_killed(tmp_path: Path) -> None:
    before = MachineState.now()
    process = start(tmp_path / "run", "duration_s=60", FEW)
    wait_for_line(process, "the run has begun")
    (server,) = [pid for pid in descendants(process.pid) if name_of(pid) == "fadelab:server"]
    os.kill(server, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 6, output
    assert "server ended unexpectedly with SIGKILL" in output
    check_clean(before, MachineState.now())
