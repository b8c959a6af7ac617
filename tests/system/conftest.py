"""Whole testbeds: what a user sees of `fadelab`, from the outside."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.system.commands import ROOT, Ended, run_to_the_end
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


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ended]:
    """Run an experiment to its end."""

    def named(name: str, *settings: str, **experiment: Path) -> Ended:
        return run_to_the_end(tmp_path / name, *settings, **experiment)

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
