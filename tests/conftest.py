"""Common to all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.engine import Engine

# gRPC wakes its threads again in every forked child, where a process with threads may not enter a
# sandbox: every namespace test after the first gRPC test would be skipped. Read at its import.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Processes of tests find the tests' modules by the same names as pytest does.
sys.path.insert(0, str(Path(__file__).parents[1]))

# How long an example takes says more about the machine than about the code.
settings.register_profile("fadelab", deadline=None)
settings.load_profile("fadelab")


# Where `make` looks for the tests that have a mark.
_PLACES = {
    "namespaces": ("deploy", "device_agent", "emulation", "system"),
    "system": ("system",),
    "docker": ("deploy", "system"),
    "uml": ("uml",),
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a mark where nobody would run it."""
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        for mark in item.iter_markers():
            if folder not in _PLACES.get(mark.name, (folder,)):
                raise pytest.UsageError(
                    f"{item.nodeid} is marked {mark.name}, which `make` looks for in "
                    f"{', '.join(_PLACES[mark.name])} alone"
                )


@pytest.fixture(scope="session")
def docker_engine() -> Iterator["Engine"]:
    """Return an engine with the base image."""
    from tests.engine import engine, provide_base  # noqa: PLC0415 -- after the path is set

    with engine() as found:
        provide_base(found)
        yield found


@pytest.fixture(scope="session")
def images(docker_engine: "Engine") -> str:
    """Return what `fadelab images build` said of images of this code, tagged for tests."""
    from tests.engine import TAG, wheels  # noqa: PLC0415

    order = ("--tag", TAG, "--wheels", str(wheels()), "--offline")
    ended = docker_engine.fadelab("images", "build", *order)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
