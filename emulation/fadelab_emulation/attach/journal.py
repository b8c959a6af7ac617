"""A file that says what a living process has made in networks of others, for whoever outlives it."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from fadelab_emulation.attach.places import find_place
from fadelab_emulation.attach.undo import ALIAS, MadeLink, ShapedInterface
from fadelab_proto.config import StrictModel

JOURNALS = Path("/run/fadelab")
"""Where journals lie: gone after a restart of the machine, as everything they speak of."""

AnyTrace = Annotated[MadeLink | ShapedInterface, Field(discriminator="kind")]


class _Content(StrictModel):
    pid: int
    traces: list[AnyTrace]


class Journal:
    """The journal of this process: a lock on it says that the process lives.

    The kernel lets go of the lock when the process ends, however it ends. Raises OSError where
    the folder cannot be written.
    """

    def __init__(self, folder: Path = JOURNALS) -> None:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        name = f"emulate-{secrets.token_hex(4)}"
        self.alias = f"{ALIAS} {name}"
        """For every interface that is made."""
        self._path = folder / f"{name}.json"
        self._draft = folder / f".{name}"
        self._locks: list[int] = []
        self.write([])

    def write(self, traces: Sequence[AnyTrace]) -> None:
        """Note everything that is about to be made or has been; replaces what was noted."""
        content = _Content(pid=os.getpid(), traces=list(traces))
        lock = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        # Locked before it gets its name: no moment in which it looks like a dead one's.
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, content.model_dump_json(indent=2).encode())
        self._draft.rename(self._path)
        for old in self._locks:
            os.close(old)
        self._locks = [lock]

    def remove(self) -> None:
        """Remove it, when everything it speaks of is removed."""
        self._path.unlink(missing_ok=True)
        for lock in self._locks:
            os.close(lock)
        self._locks = []


def remove_leftovers(folder: Path = JOURNALS) -> list[str]:
    """Remove what dead processes have made, and their journals; return it in words."""
    removed: list[str] = []
    for path in sorted(folder.glob("emulate-*.json")):
        content = _dead(path)
        if content is not None:
            removed += [name for trace in content.traces if (name := _undo(trace))]
            path.unlink(missing_ok=True)
    return removed


def has_living_owner(alias: str, folder: Path = JOURNALS) -> bool:
    """Say whether an interface with an alias of ours belongs to a process that lives."""
    name = alias.removeprefix(ALIAS).strip()
    if not name:
        return False
    try:
        with (folder / f"{name}.json").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _dead(path: Path) -> _Content | None:
    """Return what a journal says if its process is dead; None if it lives or is unreadable."""
    with contextlib.suppress(OSError, ValidationError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _Content.model_validate_json(file.read())
    return None


def _undo(trace: AnyTrace) -> str:
    """Undo it where its namespace still exists; return what that was, or nothing."""
    name = trace.place
    place = find_place(name.label, name.path, name.identity)
    if place is None:
        return ""
    namespace = place.namespace()
    try:
        return f"{trace.name} in {name.label}" if trace.undo(namespace.netlink) else ""
    finally:
        namespace.close()
