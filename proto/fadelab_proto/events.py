"""The structured event log: append-only JSON lines, one schema for every role.

Each line is an object with the keys of :class:`EventLog` below plus the event's own fields. The
report and the summary are computed from these files alone, so that every number can be traced to
something a process saw.
"""

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from fadelab_proto.clock import Clock

# Kept: json.dumps would make a new one for every line.
_ENCODER = json.JSONEncoder(allow_nan=False)

_LONGEST_LINE_BYTES = 1 << 20

Value = (
    str | int | float | bool | None | list[float] | list[int] | list[str] | dict[str, float | None]
)


class EventLog:
    """Append events of one process to ``<directory>/<role>-<identity>.jsonl``.

    Every line holds: ``event`` (its name), ``role``, ``id``, ``mono_s`` (monotonic seconds of the
    machine), ``wall_s`` (Unix time), ``t_s`` (emulated seconds since the start of the run, null
    before it) and the event's fields. Lines are flushed as they are written: a killed process
    loses at most the line it was writing, and the next one goes on behind the whole lines.
    """

    def __init__(self, directory: Path, role: str, identity: str, clock: Clock) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{role}-{identity}.jsonl"
        self._file = path.open("a", buffering=1)
        _cut_torn_line(path)
        self._role = role
        self._identity = identity
        self._clock = clock
        self._start_s: float | None = None

    def set_start(self, start_s: float) -> None:
        """Fix the monotonic second at which emulated time is 0."""
        self._start_s = start_s

    def write(self, event: str, **fields: Value) -> None:
        """Append one event; ``fields`` must not use the reserved keys."""
        now = self._clock.now_s()
        line = {
            "event": event,
            "role": self._role,
            "id": self._identity,
            "mono_s": round(now, 6),
            "wall_s": round(time.time(), 6),
            "t_s": None if self._start_s is None else round(now - self._start_s, 6),
            **fields,
        }
        self._file.write(_ENCODER.encode(line) + "\n")

    def close(self) -> None:
        """Close the file; nothing may be written afterwards."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        tail_at = file.seek(max(0, size - _LONGEST_LINE_BYTES))
        end = tail_at + file.read().rfind(b"\n") + 1
        if end < size:
            file.truncate(end)


def read_events(path: Path) -> list[dict[str, Value]]:
    """Return the events of one file in order; a torn last line (killed writer) is left out."""
    events: list[dict[str, Value]] = []
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines) - 1:
                raise
    return events
