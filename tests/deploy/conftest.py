"""Common to the tests of this folder, which find their helpers beside them."""

import sys
from pathlib import Path

import pytest

from fadelab_emulation.sandbox import probe_sandbox

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def _needs_sandbox() -> None:
    """Skip where no sandbox can be had."""
    probe = probe_sandbox()
    if not probe.available:
        pytest.skip(f"needs namespaces: {probe.problem}")
