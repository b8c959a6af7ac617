"""Runs `fadelab` as a user would, and looks at what it leaves behind."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart.yaml"
ON_A_BUSY_MACHINE = (
    "validity.lateness_p99_ms=500",
    "validity.calibration_rate_error=0.25",
    "validity.delay_error_ms=25",
    "validity.resume_p95_ms=500",
)
"""In a run of seconds one late tick is more than one per cent: how punctual the machine is while it
runs tests is not what these tests are about."""


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


def run_arguments(
    run_dir: Path, *settings: str, experiment: Path, options: Sequence[str] = ()
) -> list[str]:
    """Return the arguments of a run whose verdict allows for a busy machine."""
    given = [option for x in (*ON_A_BUSY_MACHINE, *settings) for option in ("--set", x)]
    return ["run", str(experiment), "--out", str(run_dir), *options, *given]


def start(
    run_dir: Path,
    *settings: str,
    experiment: Path = QUICKSTART,
    options: Sequence[str] = (),
    environment: Mapping[str, str] = {},
) -> subprocess.Popen[str]:
    """Start a run whose output can be read line by line."""
    return subprocess.Popen(
        fadelab(*run_arguments(run_dir, *settings, experiment=experiment, options=options)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def run_to_the_end(run_dir: Path, *settings: str, experiment: Path = QUICKSTART) -> Ended:
    """Run an experiment."""
    process = start(run_dir, *settings, experiment=experiment)
    try:
        output, _ = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, output, run_dir)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Read the run's output until a line holds ``text``."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"the run ended without saying {text!r}:\n{''.join(seen)}")
