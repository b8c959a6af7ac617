"""A finished run's models once more: from R, U and X in the event log and the updates in the journal.

Nothing else goes in but version 0. The mixing weights are the log's, the arithmetic is
:func:`fadelab_server.scheduler.event_log.mix`, and every version is compared with the digest that the
server wrote down when it made it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import codecs
from fadelab_proto.events import Value
from fadelab_proto.packet import Packet, parse_packet
from fadelab_server.journal.records import Applied, Kind, decode_decision, intact
from fadelab_server.journal.segments import read_segment, segment_path, segment_starts
from fadelab_server.scheduler.event_log import EventLogError, Uploaded, mix, replay
from fadelab_server.scheduler.log_lines import UPLOADED, task_log_of

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of doing a task's aggregations once more."""

    newest: F32
    """The last version, as it came out."""
    staleness: int
    """The largest."""
    versions: int
    """How many were made, version 0 not counted."""
    different: tuple[int, ...]
    """Those that the server had otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class JournalledUpdate:
    """An update that was handed to the aggregation rule."""

    device: int
    base_version: int
    packets: tuple[Packet, ...]

    def delta(self, dimension: int) -> F32:
        """Return local result minus base version, shape ``(dimension,)``."""
        found = np.zeros(dimension, dtype=np.float32)
        for one in self.packets:
            codecs.decode(one.codec, one.payload, first=one.first, count=one.count).add_to(found)
        return found


def digest(vector: F32) -> str:
    """Return what tells a version from all others: 128 bits of BLAKE2b over its bytes."""
    return hashlib.blake2b(vector.astype("<f4").tobytes(), digest_size=16).hexdigest()


def journalled_updates(directory: Path, task: int) -> Iterator[JournalledUpdate]:
    """Yield the updates of one task that were taken, in that order.

    Args:
        directory: the journal's, kept from its beginning; it is only read.
        task: the task's number.

    Raises:
        JournalError: if it is damaged.

    """
    pending: dict[tuple[int, int], dict[int, Packet]] = {}
    for start in segment_starts(directory):
        for record in read_segment(segment_path(directory, start), start, intact):
            if record.kind == Kind.PACKET:
                packet = parse_packet(bytes(record.body))
                if packet.task_index == task:
                    own = pending.setdefault((packet.device, packet.update_id), {})
                    own[packet.sequence] = packet
            elif record.kind == Kind.APPLIED:
                applied = decode_decision(Applied, record.body)
                packets = pending.pop((applied.device, applied.update_id), {})
                if applied.task == task and packets:
                    ordered = tuple(packets[number] for number in sorted(packets))
                    yield JournalledUpdate(applied.device, ordered[0].base_version, ordered)


def reproduce(
    lines: Sequence[Mapping[str, Value]],
    updates: Iterable[JournalledUpdate],
    first: F32,
    *,
    task: str,
    devices: int,
) -> Reproduction:
    """Do a task's aggregations once more.

    Args:
        lines: the server's events.
        updates: of the task, in the order in which they were taken.
        first: version 0.
        task: its name.
        devices: of the run.

    Raises:
        EventLogError: if the log contradicts itself or the journal.

    """
    log = task_log_of(lines, task=task, devices=devices)
    digests = [
        line.get("digest")
        for line in lines
        if line.get("event") == UPLOADED and line.get("task") == task
    ]
    staleness = max((upload.staleness for upload in log.uploads), default=0)
    versions: dict[int, F32] = {}
    arriving = iter(updates)

    def aggregate(newest: F32, upload: Uploaded) -> F32:
        update = next(arriving, None)
        if update is None or (update.device, update.base_version) != (
            upload.device,
            upload.version,
        ):
            raise EventLogError(
                f"aggregation {upload.aggregation} was made by device {upload.device} from version "
                f"{upload.version}, but the journal has another update there"
            )
        arrived = versions[upload.version] + update.delta(len(first))
        return mix(newest, arrived, upload.mixing)

    different, newest = [], first
    for number, newest in replay(log, first, aggregate):
        versions[number] = newest
        versions.pop(number - staleness - 1, None)
        if number and digest(newest) != digests[number - 1]:
            different.append(number)
    return Reproduction(newest, staleness, len(log.uploads), tuple(different))
