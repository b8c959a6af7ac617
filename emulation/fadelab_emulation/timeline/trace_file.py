"""Reading trace files that others made: bounded, and with a sentence for what cannot be read."""

from pathlib import Path

_LARGEST_BYTES = 64 * 2**20


def read_trace(path: Path) -> bytes:
    """Return a text file's bytes, with Unix line ends.

    Raises:
        ValueError: the file cannot be read, is empty or larger than 64 MiB.

    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the trace {path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_BYTES:
        raise ValueError(f"the trace {path} is larger than {_LARGEST_BYTES >> 20} MiB")
    if not content.strip():
        raise ValueError(f"the trace {path} is empty")
    return content.replace(b"\r\n", b"\n")
