"""Whole testbeds: run `fadelab` as a user would, look at what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fadelab_emulation.sandbox import probe_sandbox

ROOT = Path(__file__).resolve().parents[2]
_ON_A_BUSY_MACHINE = (
    "validity.lateness_p99_ms=500",
    "validity.calibration_rate_error=0.25",
    "validity.delay_error_ms=25",
    "validity.resume_p95_ms=500",
)
"""In a run of seconds one late tick is more than one per cent: how punctual the machine is while it
runs tests is not what these tests are about."""
QUICKSTART = ROOT / "examples" / "quickstart.yaml"


@dataclass(frozen=True)
class Ended:
    """A finished command."""

    code: int
    output: str
    run_dir: Path

    @property
    def summary(self) -> dict[str, object]:
        found = json.loads((self.run_dir / "summary.json").read_text())
        assert isinstance(found, dict)
        return found


def fadelab(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fadelab", *arguments]


def start(run_dir: Path, *settings: str, experiment: Path = QUICKSTART) -> subprocess.Popen[str]:
    """Start a run whose output can be read line by line."""
    given = (*_ON_A_BUSY_MACHINE, *settings)
    options = [option for setting in given for option in ("--set", setting)]
    return subprocess.Popen(
        fadelab("run", str(experiment), "--out", str(run_dir), *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Read the run's output until a line holds ``text``."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"the run ended without saying {text!r}:\n{''.join(seen)}")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ended]:
    """Run an experiment to its end."""

    def to_the_end(name: str, *settings: str, experiment: Path = QUICKSTART) -> Ended:
        process = start(tmp_path / name, *settings, experiment=experiment)
        try:
            output, _ = process.communicate(timeout=180)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        return Ended(process.returncode, output, tmp_path / name)

    return to_the_end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip whole-testbed tests where no sandbox can be had, and say why."""
    probe = probe_sandbox()
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "system"):
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.namespaces)
            if not probe.available:
                item.add_marker(pytest.mark.skip(reason=probe.problem))
