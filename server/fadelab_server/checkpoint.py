"""Atomic checkpoints, and the promise that what was acknowledged survives a crash.

A checkpoint is one ``.npz`` file (no pickled objects) that is written beside the old one, flushed
to the disk and renamed over it: at any moment there is one whole checkpoint. Writers are grouped:
while one checkpoint is being written, further contributions pile up and all of them wait for the
next one, so the cost does not grow with their number.
"""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]
FILE_NAME = "server.npz"
_META = "meta"
# What numpy and zipfile raise for a file that is torn or of another kind: an empty file is an
# EOFError, a single array a TypeError, a zip member that is no array lacks the array's methods.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    BadZipFile,
)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says which and why."""


def save(directory: Path, meta: dict[str, object], arrays: Arrays) -> None:
    """Replace the checkpoint in ``directory``; durable when this returns.

    Raises:
        CheckpointError: if the file system refuses, for example because it is full.

    """
    partial = directory / (FILE_NAME + ".partial")
    header = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_META: header}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(directory / FILE_NAME)
        _sync_directory(directory)
    except OSError as error:
        raise CheckpointError(f"cannot write a checkpoint in {directory}: {error}") from error


def load(directory: Path) -> tuple[dict[str, object], Arrays]:
    """Read the checkpoint in ``directory``.

    Raises:
        CheckpointError: if there is none or it is not one of ours.

    """
    path = directory / FILE_NAME
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(_META).tobytes())
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint at {path}") from None
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path} is not a checkpoint: its description is not an object")
    return meta, arrays


class Checkpointer:
    """Write checkpoints in the background and let callers wait until theirs is durable.

    Args:
        directory: where the checkpoint lies.
        snapshot: returns a consistent copy of the state; called in the event loop.

    """

    def __init__(
        self, directory: Path, snapshot: Callable[[], tuple[dict[str, object], Arrays]]
    ) -> None:
        self._directory = directory
        self._snapshot = snapshot
        self._waiting: list[asyncio.Future[None]] = []
        self._writer: asyncio.Task[None] | None = None

    async def durable(self) -> None:
        """Return once a checkpoint that includes the present state is on the disk.

        Raises:
            CheckpointError: if it could not be written.

        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            served, self._waiting = self._waiting, []
            try:
                meta, arrays = self._snapshot()
                await asyncio.to_thread(save, self._directory, meta, arrays)
            except Exception as error:  # noqa: BLE001 -- whoever waits has to hear of it
                for done in served:
                    if not done.done():
                        done.set_exception(error)
            else:
                for done in served:
                    if not done.done():
                        done.set_result(None)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
