"""Containers of runs whose launcher was killed: found by their labels, removed by the next run."""

import fcntl
import os
import socket
from pathlib import Path
from typing import Any

from fadelab.compose.crew import remove_containers
from fadelab.compose.services import RUN_LABEL
from fadelab.emulate.engine import DockerEngine
from fadelab.local.launch import LOCK

_SOCKETS_LABEL, _OWNER_LABEL = "fadelab.sockets", "fadelab.owner"


def owner_labels(sockets: Path) -> dict[str, str]:
    """Return by which labels a later run knows that the containers of this one are nobody's.

    Args:
        sockets: the folder of the run's sockets, locked by its launcher, which lives no longer than its launcher.

    """
    return {_SOCKETS_LABEL: str(sockets), _OWNER_LABEL: _owner()}


def remove_leftovers(engine: DockerEngine) -> list[str]:
    """Remove what this user's dead launchers have left on this machine; name what that was.

    Containers that `fadelab compose` was to write down only, and those of others, stay.
    """
    label = f"{_OWNER_LABEL}={_owner()}"
    found: list[Any] = engine.client.containers.list(all=True, filters={"label": [label]})
    dead = [one for one in found if not _lives(Path(one.labels[_SOCKETS_LABEL]))]
    remove_containers(dead)
    return [
        f"the containers of run {run}" for run in sorted({one.labels[RUN_LABEL] for one in dead})
    ]


def _owner() -> str:
    """Return who starts containers here; a launcher in a container sees another file system."""
    return f"{os.getuid()}@{socket.gethostname()}"


def _lives(sockets: Path) -> bool:
    try:
        with (sockets / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
