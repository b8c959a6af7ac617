"""Tests of links, run a second time inside User-Mode Linux, where sch_netem is real."""

import re
import sys
import time
from pathlib import Path

import pytest
from machine import UmlResult, run_in_uml, uml_problem

pytestmark = [
    pytest.mark.uml,
    pytest.mark.skipif(bool(uml_problem()), reason=uml_problem()),
]

_EMULATION = Path(__file__).parents[1] / "emulation"
_LIMIT_S = 300
_PATTERNS = ("test_impairment_ebpf.py", "test_impairment_netem.py", "test_conformance*.py")
"""What is run there; everything else finds in any kernel what it needs."""
_NO_TESTS = 5
_ATTEMPTS = 3
"""A machine in a process measures well only as long as nothing else wants the processor. What other
work has disturbed passes when it is measured again; what is wrong does not."""


def pytest_in_uml(*arguments: str) -> UmlResult:
    """Run pytest; plugins that write into the source tree stay out."""
    without = [f"-pno:{plugin}" for plugin in ("cacheprovider", "hypothesispytest")]
    command = [sys.executable, "-m", "pytest", *without, "-rs", "--durations=3", *arguments]
    return run_in_uml(command, _LIMIT_S)


def _marks(file: Path) -> list[pytest.MarkDecorator]:
    """Return the marks of a file: whatever takes minutes in here is left to `make conformance`."""
    return [pytest.mark.conformance] if "conformance" in file.stem else []


@pytest.mark.timeout(_ATTEMPTS * _LIMIT_S + 60)
@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=_marks(file))
        for pattern in _PATTERNS
        for file in sorted(_EMULATION.glob(pattern))
    ],
)
def test_links_in_uml(file: Path) -> None:
    # Of the back-ends that must conform, the others do so outside already.
    narrowed = ["-k", "netem"] if "conformance" in file.stem else []
    for _ in range(_ATTEMPTS):
        result = pytest_in_uml(str(file), *narrowed)
        if result.exit_code in (0, _NO_TESTS):
            break
    if result.exit_code == _NO_TESTS:
        pytest.skip(f"{file.name} has no test of netem")
    assert result.exit_code == 0, f"{result.output}\n{result.console}"
    summary = result.output.splitlines()[-1]
    sys.stdout.write(f"{file.stem} in User-Mode Linux: {summary}\n")
    assert re.search(r"\d+ passed", summary), result.output
    if "netem" in file.stem:
        assert "skipped" not in summary, result.output


def test_a_command_that_fails_is_told_from_a_machine_that_does_not_end() -> None:
    failing = run_in_uml(["sh", "-c", "echo $((6 * 7)); exit 3"], timeout_s=60)
    assert (failing.exit_code, failing.output.splitlines()[-1]) == (3, "42")
    begin_s = time.monotonic()
    endless = run_in_uml(["sleep", "1000"], timeout_s=8)
    assert endless.exit_code is None
    assert "stopped after 8 s" in endless.console
    assert time.monotonic() - begin_s < 30
