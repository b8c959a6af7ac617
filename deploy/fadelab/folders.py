"""Folders that a command makes, and what stands in their way."""

import contextlib
from collections.abc import Iterator

from fadelab.exit_codes import ExitCode, FadelabError


@contextlib.contextmanager
def made(folder: str, promise: str) -> Iterator[None]:
    """Make a folder within; what the file system says against it becomes the user's sentence.

    Args:
        folder: the option that names it, and its name.
        promise: why one that exists already will not do.

    Raises:
        FadelabError: USAGE, if it exists already or cannot be made.

    """
    try:
        yield
    except FileExistsError:
        raise FadelabError(ExitCode.USAGE, f"{folder}: it exists already; {promise}") from None
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"{folder}: cannot make it: {error.strerror}") from None
