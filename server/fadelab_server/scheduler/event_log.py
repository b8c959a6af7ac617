"""The log of receptions and uploads of one task, and what follows from it exactly.

Whoever has the log, the first version and the uploaded models has every later version, bit for bit: :func:`replay` does
(6) of DMA-FL (arXiv 2305.13503) once more in the order of the log.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fadelab_server.scheduler.tensors import F64

F32 = NDArray[np.float32]


class EventLogError(ValueError):
    """The events contradict each other; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Received:
    """A device has got a version of the task's model."""

    device: int
    version: int
    t_s: float


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A device's model has made an aggregation."""

    device: int
    version: int
    """The one that training began with, g."""
    aggregation: int
    """Number of the aggregation, g': the version that it was mixed into."""
    mixing: float
    """The weight alpha that was used, as float32 has it."""
    t_s: float

    @property
    def staleness(self) -> int:
        """Return the aggregations that were passed without this model."""
        return self.aggregation - self.version


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A reception that no upload will follow: the device left, or its update was refused."""

    device: int
    version: int
    t_s: float


Event = Received | Uploaded | Abandoned


@dataclass(frozen=True, slots=True)
class TaskLog:
    """The events of one task in their order.

    Raises:
        EventLogError: if aggregations are not numbered 0, 1, ..., a device receives two versions
            without an upload between them, a version that does not exist, or uploads what it did
            not receive; or time goes backwards.

    """

    devices: int
    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        holds: dict[int, int] = {}
        newest, now_s = 0, -np.inf
        for number, event in enumerate(self.events):
            where = f"event {number}"
            if not 0 <= event.device < self.devices:
                raise EventLogError(f"{where}: there is no device {event.device}")
            if event.t_s < now_s:
                raise EventLogError(f"{where}: time goes back from {now_s} to {event.t_s} s")
            now_s = event.t_s
            match event:
                case Received():
                    _check_reception(where, event, holds, newest)
                    holds[event.device] = event.version
                case Uploaded():
                    _check_upload(where, event, holds, newest)
                    del holds[event.device]
                    newest += 1
                case Abandoned():
                    _check_held(where, event, holds)
                    del holds[event.device]

    @property
    def uploads(self) -> tuple[Uploaded, ...]:
        """Return the events that made aggregations 0, 1, ..."""
        return tuple(event for event in self.events if isinstance(event, Uploaded))

    def tensors(self) -> tuple[F64, F64]:
        """Return R and U, each of shape ``(devices, aggregations)``.

        Abandoned receptions and those of the last version, which no aggregation followed, are in
        neither.
        """
        aggregations = len(self.uploads)
        received = np.zeros((self.devices, aggregations))
        uploaded = np.zeros((self.devices, aggregations))
        for event in self.events:
            if isinstance(event, Uploaded):
                uploaded[event.device, event.aggregation] = 1
            elif event.version < aggregations:
                received[event.device, event.version] = isinstance(event, Received)
        return received, uploaded


def mix(newest: F32, arrived: F32, mixing: float) -> F32:
    """Return ``(1 - alpha) w + alpha w_new`` (6), rounded as float32 does at each operation."""
    alpha = np.float32(mixing)
    return (np.float32(1) - alpha) * newest + alpha * arrived


def replay(
    log: TaskLog, first: F32, aggregate: Callable[[F32, Uploaded], F32]
) -> Iterator[tuple[int, F32]]:
    """Yield number and parameters of every version that the log leads to, the first one included.

    Args:
        log: of the task.
        first: version 0, float32 of shape ``(dimension,)``.
        aggregate: returns the next version from the newest one and an upload; what the server
            does, such as :func:`mix` with the upload's model and weight.

    """
    newest = first
    yield 0, newest
    for upload in log.uploads:
        newest = aggregate(newest, upload)
        yield upload.aggregation + 1, newest


def task_log(devices: int, events: Iterable[Event]) -> TaskLog:
    """Return a checked log; see :class:`TaskLog`."""
    return TaskLog(devices, tuple(events))


def _check_reception(where: str, event: Received, holds: dict[int, int], newest: int) -> None:
    if event.device in holds:
        raise EventLogError(
            f"{where}: device {event.device} receives version {event.version} and still has "
            f"version {holds[event.device]} to train"
        )
    if event.version != newest:
        raise EventLogError(
            f"{where}: device {event.device} receives version {event.version}, but the newest "
            f"is {newest}"
        )


def _check_upload(where: str, event: Uploaded, holds: dict[int, int], newest: int) -> None:
    if event.aggregation != newest:
        raise EventLogError(
            f"{where}: aggregation {event.aggregation} follows version {newest}, which is another"
        )
    _check_held(where, event, holds)
    if not 0 < event.mixing <= 1:
        raise EventLogError(f"{where}: a mixing weight must be in (0, 1], not {event.mixing}")


def _check_held(where: str, event: Uploaded | Abandoned, holds: dict[int, int]) -> None:
    if holds.get(event.device) != event.version:
        verb = "uploads from" if isinstance(event, Uploaded) else "abandons"
        raise EventLogError(
            f"{where}: device {event.device} {verb} version {event.version}, which it does not hold"
        )
