"""Atomic checkpoints: the whole state in one file.

A checkpoint is one ``.npz`` file (no pickled objects) that is written beside the old one, flushed
to the disk and renamed over it: at any moment there is one whole checkpoint.
"""

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.durable import replace_file

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
    header = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(
            directory / FILE_NAME,
            lambda file: np.savez(file, allow_pickle=False, **{_META: header}, **arrays),
        )
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
