"""What a device keeps on disk, so that a new agent process goes on where a killed one stopped."""

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from fadelab_agent.contact_history import HistoryFile
from fadelab_agent.spool import Owner, Spool
from fadelab_proto.durable import replace_file

_KEY = "key"
_KEY_BYTES = 8


class StateDirError(RuntimeError):
    """The folder cannot be used; the message says why."""


class StateDir:
    """The folder of one device: a key by which the server knows it again, and spools.

    It belongs to one process at a time. The kernel lets go of it when that process ends, however it
    ends.

    Args:
        folder: where it is; made if missing, for this user alone. With None nothing is kept.
        sync: whether its files shall survive a crash of the machine too, not of the agent alone.

    Raises:
        StateDirError: if it cannot be made, read or written, or another process has it.

    """

    def __init__(self, folder: Path | None, *, sync: bool = True) -> None:
        self.key = 0
        """By it the server knows the device again; 0 if nothing is kept."""
        self._folder = folder
        self._sync = sync
        self._lock: int | None = None
        if folder is not None:
            self._lock = self._take(folder)

    def _take(self, folder: Path) -> int:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StateDirError(f"cannot use state_dir {folder}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.key = _read_key(folder / _KEY, sync=self._sync)
        except BlockingIOError:
            os.close(lock)
            raise StateDirError(
                f"another agent process uses state_dir {folder}: each device needs one of its own"
            ) from None
        except OSError as error:
            os.close(lock)
            raise StateDirError(f"cannot use state_dir {folder}: {error.strerror}") from error
        return lock

    def spool(self, owner: Owner) -> Spool | None:
        """Return the spool of a task, if anything is kept."""
        if self._folder is None:
            return None
        return Spool(self._folder / f"{owner.task}.spool", owner, sync=self._sync)

    def history(self, owner: Owner) -> HistoryFile:
        """Return where a task's history of contacts is kept."""
        path = None if self._folder is None else self._folder / f"{owner.task}.contacts.json"
        return HistoryFile(path, owner, sync=self._sync)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)


def _read_key(path: Path, *, sync: bool) -> int:
    """Return the device's key; drawn now if there is none or what is there is none."""
    with contextlib.suppress(FileNotFoundError):
        kept = path.read_bytes()
        if len(kept) == _KEY_BYTES and any(kept):
            return int.from_bytes(kept, "little")
    # Before the server hears of it: a key that it knows and the device forgot would be of no use.
    key = 1 + secrets.randbelow(2 ** (8 * _KEY_BYTES) - 1)
    replace_file(path, lambda file: file.write(key.to_bytes(_KEY_BYTES, "little")), sync=sync)
    return key
