"""Files that survive a crash: written beside the old one, flushed, renamed over it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def replace_file(path: Path, write: Callable[[IO[bytes]], object], *, sync: bool = True) -> None:
    """Let a file hold what ``write`` writes; whatever happens meanwhile, all of it or the old.

    Args:
        path: of the file.
        write: gets a new file, open for writing.
        sync: whether to return only when the disk has it.

    Raises:
        OSError: if the file system refuses.

    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
