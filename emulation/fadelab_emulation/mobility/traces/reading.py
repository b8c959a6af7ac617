"""Reading what may be any file: bounded, and refused in one sentence that says where and what."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

_LONGEST_LINE = 10_000
_LONGEST_SHOWN = 40
# Beyond this, floating point no longer tells milliseconds apart.
_GREATEST = 1e10


class Sighting(NamedTuple):
    """One vehicle's place at one time."""

    t_s: float
    vehicle: str
    x_m: float
    y_m: float
    joined: bool
    """Whether it came here from its last sighting, in a straight line, and was never away."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a trace file; ValueError if it cannot be read."""
    try:
        if not path.exists():
            raise ValueError(f"there is no trace file {path}")
        if not path.is_file():
            raise ValueError(f"the trace {path} is not a file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ValueError(f"cannot read the trace file {path}: {error.strerror}") from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Return the file's lines with their numbers, from 1 on; ValueError if it is not text."""
    with opened(path) as file:
        line_number = 0
        while raw := file.readline(_LONGEST_LINE + 1):
            line_number += 1
            if len(raw) > _LONGEST_LINE:
                raise at_line(path, line_number, f"it is longer than {_LONGEST_LINE} bytes")
            try:
                # Some spreadsheets begin their files with a byte-order mark.
                text = raw.decode("utf-8-sig" if line_number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise at_line(path, line_number, "it is not UTF-8 text") from None
            yield line_number, text


def at_line(path: Path, line_number: int, problem: object) -> ValueError:
    """Return the error that says where in a file a problem lies."""
    return ValueError(f"{path}, line {line_number}: {problem}")


def shown(text: str) -> str:
    """Return a piece of a file as a sentence can show it."""
    return repr(text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "...")


def seconds(t_s: float) -> str:
    """Return a time as a sentence can show it: digits enough for seconds since 1970."""
    return f"{t_s:.12g} s"


def number(text: str, what: str) -> float:
    """Return the number that stands in a file as ``what``.

    Raises:
        ValueError: not a finite number of sensible size.

    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Python's own notation 1_000 is nobody's trace format.
    if not abs(value) <= _GREATEST or "_" in text:
        raise ValueError(
            f"{what} is {shown(text)}; it must be a number from {-_GREATEST:g} to {_GREATEST:g}"
        )
    return value
