"""Whole testbeds: what a user sees of `fadelab`, from the outside."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.system.commands import QUICKSTART, ROOT, Ended, run_arguments, run_to_the_end
from tests.system.forked_runs import ForkedRuns
from tests.system.machine_state import MachineState

from fadelab_emulation.sandbox import probe_sandbox


@dataclass(frozen=True)
class ShortRun:
    """A run that several tests look at, and the machine before and after it."""

    ended: Ended
    before: MachineState
    after: MachineState


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> ShortRun:
    """Twelve seconds of the quickstart."""
    before = MachineState.now()
    ended = run_to_the_end(tmp_path_factory.mktemp("short") / "short", "duration_s=12")
    return ShortRun(ended, before, MachineState.now())


@pytest.fixture(scope="session")
def forked_runs() -> Iterator[ForkedRuns]:
    """Return what forks runs for all tests."""
    made = ForkedRuns()
    yield made
    made.close()


@pytest.fixture
def run(tmp_path: Path, forked_runs: ForkedRuns) -> Callable[..., Ended]:
    """Run an experiment to its end."""

    def named(name: str, *settings: str, experiment: Path = QUICKSTART) -> Ended:
        run_dir, output = tmp_path / name, tmp_path / f"{name}.txt"
        arguments = run_arguments(run_dir, *settings, experiment=experiment)
        code = forked_runs.run(*arguments, output=output, patience_s=180)
        return Ended(code, output.read_text(), run_dir)

    return named


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip whole-testbed tests where no sandbox can be had, and say why."""
    probe = probe_sandbox()
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "system"):
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.namespaces)
            if not probe.available:
                item.add_marker(pytest.mark.skip(reason=probe.problem))
