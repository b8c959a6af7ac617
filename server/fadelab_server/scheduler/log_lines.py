"""Events of the schedule as lines of the event log, and back.

A line is what :class:`fadelab_proto.events.EventLog` writes: ``event`` is one of ``schedule_received``,
``schedule_uploaded`` and ``schedule_abandoned``, ``t_s`` the emulated time, ``task`` the task's name or number.
Numbers survive the way through JSON exactly.
"""

from collections.abc import Iterable, Mapping

from fadelab_proto.events import Value
from fadelab_server.scheduler.event_log import (
    Abandoned,
    Event,
    EventLogError,
    Received,
    TaskLog,
    Uploaded,
)

RECEIVED, UPLOADED, ABANDONED = "schedule_received", "schedule_uploaded", "schedule_abandoned"


def task_log_of(lines: Iterable[Mapping[str, Value]], *, task: str | int, devices: int) -> TaskLog:
    """Return the schedule of one task; lines of other events and tasks are passed over.

    Raises:
        EventLogError: if a line lacks a number, or the events contradict each other.

    """
    events = [
        _event(line)
        for line in lines
        if line.get("event") in {RECEIVED, UPLOADED, ABANDONED} and line.get("task") == task
    ]
    return TaskLog(devices, tuple(events))


def _event(line: Mapping[str, Value]) -> Event:
    device, version, t_s = _whole(line, "device"), _whole(line, "version"), _number(line, "t_s")
    match line["event"]:
        case "schedule_uploaded":
            aggregation, mixing = _whole(line, "aggregation"), _number(line, "mixing")
            return Uploaded(device, version, aggregation, mixing, t_s)
        case "schedule_abandoned":
            return Abandoned(device, version, t_s)
        case _:
            return Received(device, version, t_s)


def _number(line: Mapping[str, Value], key: str) -> float:
    value = line.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EventLogError(f"{key} of a {line['event']} should be a number, not {value!r}")
    return float(value)


def _whole(line: Mapping[str, Value], key: str) -> int:
    value = line.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise EventLogError(f"{key} of a {line['event']} should be a whole number, not {value!r}")
    return value
