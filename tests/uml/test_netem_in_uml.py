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
_IMPAIRMENTS = ("test_impairment_ebpf.py", "test_impairment_netem.py")
"""What is run there besides the conformance suite; everything else finds in any kernel what it needs.
One machine runs them all: to boot and to load numpy takes it 12 s."""
_NO_TESTS = 5
_ATTEMPTS = 5
"""A machine in a process measures well only as long as nothing else wants the processor. What other
work has disturbed passes when it is measured again; what is wrong does not."""


def pytest_in_uml(*arguments: str) -> UmlResult:
    """Run pytest; plugins that write into the source tree stay out."""
    without = [f"-pno:{plugin}" for plugin in ("cacheprovider", "hypothesispytest")]
    command = [sys.executable, "-m", "pytest", *without, "-rs", "--durations=3", *arguments]
    return run_in_uml(command, _LIMIT_S)


def until_undisturbed(*arguments: str) -> UmlResult:
    """Run pytest again while tests fail, a few times."""
    for _ in range(_ATTEMPTS):
        result = pytest_in_uml(*arguments)
        if result.exit_code in (0, _NO_TESTS):
            break
    return result


def check_passed(name: str, result: UmlResult) -> str:
    """Return the line that sums up a run in which all went well."""
    assert result.exit_code == 0, f"{result.output}\n{result.console}"
    summary = result.output.splitlines()[-1]
    sys.stdout.write(f"{name} in User-Mode Linux: {summary}\n")
    assert re.search(r"\d+ passed", summary), result.output
    return summary


@pytest.mark.timeout(_ATTEMPTS * _LIMIT_S + 60)
def test_impairments_in_uml() -> None:
    result = until_undisturbed(*(str(_EMULATION / name) for name in _IMPAIRMENTS))
    assert "skipped" not in check_passed("impairments", result), result.output


@pytest.mark.conformance
@pytest.mark.timeout(_ATTEMPTS * _LIMIT_S + 60)
@pytest.mark.parametrize(
    "file", sorted(_EMULATION.glob("test_conformance*.py")), ids=lambda file: file.stem
)
def test_conformance_in_uml(file: Path) -> None:
    # Of the back-ends that must conform, the others do so outside already.
    result = until_undisturbed(str(file), "-k", "netem")
    if result.exit_code == _NO_TESTS:
        pytest.skip(f"{file.name} has no test of netem")
    check_passed(file.stem, result)


def test_a_command_that_fails_is_told_from_a_machine_that_does_not_end() -> None:
    failing = run_in_uml(["sh", "-c", "echo $((6 * 7)); exit 3"], timeout_s=60)
    assert (failing.exit_code, failing.output.splitlines()[-1]) == (3, "42")
    begin_s = time.monotonic()
    endless = run_in_uml(["sleep", "1000"], timeout_s=8)
    assert endless.exit_code is None
    assert "stopped after 8 s" in endless.console
    assert time.monotonic() - begin_s < 30
