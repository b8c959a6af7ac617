"""What a run was made of: experiment, seeds, versions, machine."""

import os
import platform
import sys
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fadelab.local.plan import RunPlan
from fadelab_emulation.window import BackendChoice

_PACKAGES = ("fadelab", "grpcio", "numpy", "protobuf", "pydantic", "scikit-learn", "torch")


class Deployment(StrEnum):
    """Where the processes of a run are."""

    LOCAL = "local"
    COMPOSE = "compose"
    BOARDS = "boards"
    SWARM = "swarm"
    KUBERNETES = "kubernetes"


def build_manifest(
    plan: RunPlan, deployment: Deployment, *, command_mono_s: float, backend: BackendChoice
) -> dict[str, object]:
    """Return the manifest of a run, before it starts.

    Args:
        plan: the run.
        deployment: where its processes are.
        command_mono_s: when the command was given.
        backend: what is going to carry the links, as far as is known by now.

    """
    return {
        "manifest_version": 1,
        "experiment": plan.experiment.model_dump(mode="json"),
        "run_id": f"{plan.run_id:08x}",
        "deployment": deployment.value,
        "backend": backend.value,
        "command": sys.argv,
        "command_mono_s": command_mono_s,
        "command_time": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in _PACKAGES},
        "machine": {
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "processors": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "processor": _processor(),
            "python": platform.python_version(),
            "root": os.geteuid() == 0,
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's name as Linux tells it; ARM kernels tell none."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()
