"""An append-only log with group commit: one flush to the disk for all that has come meanwhile."""

import asyncio
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fadelab_proto.durable import sync_directory
from fadelab_server.journal.segments import (
    FRAME_BYTES,
    JournalError,
    Record,
    frame,
    read_segment,
    refusals,
    segment_path,
    segment_starts,
)

_MOST_PIECES = 1000
"""Of one system call; Linux takes 1024."""
_ENOUGH_BYTES = 1 << 20
"""Are written although nobody waits for them yet."""
_GATHER_S = 5e-3
"""From the beginning of a write to that of the next: handing work to another thread and back costs the
event loop a fifth of a millisecond, whatever is written."""


class Log:
    """Append records, and learn when they are durable.

    A thread of its own writes, one write at a time: whoever appends never waits for the disk, and
    what comes during a write, or in the same turn of the event loop, is written together. When much
    comes, a write begins some milliseconds after the one before, so that it gathers more. To be
    used from the event loop's thread, but for :meth:`release`.

    Args:
        directory: where the segments lie; it is made.
        segment_bytes: a segment that has become longer than this is followed by a new one.
        sync: whether durable means on the disk; otherwise the kernel has it, so that it survives
            the end of this process but not the machine's.

    Raises:
        JournalError: if the directory cannot be written.

    """

    def __init__(self, directory: Path, *, segment_bytes: int = 1 << 25, sync: bool = True) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._sync = sync
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self._due = False
        """Whether what is pending is to be written, though perhaps after another write."""
        self._writing: asyncio.Future[None] | None = None
        self._next_s = -math.inf
        """When the next write may begin."""
        self._closed = False
        self._error: JournalError | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._loop = asyncio.get_running_loop()
        with refusals(f"open the journal in {directory}"):
            directory.mkdir(parents=True, exist_ok=True)
            starts = segment_starts(directory)
            self._start = starts[-1] if starts else 0
            self._file = os.open(
                segment_path(directory, self._start), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644
            )
            sync_directory(directory)
            self._end = self._start + os.fstat(self._file).st_size
        self._durable = self._end
        self._writer = ThreadPoolExecutor(1, "journal")

    @property
    def end(self) -> int:
        """Position after the last record appended."""
        return self._end

    @property
    def backlog_bytes(self) -> int:
        """How much was appended and is not durable yet."""
        return self._end - self._durable

    def append(
        self, kind: int, body: bytes | memoryview, *, summed: bool = True, awaited: bool = False
    ) -> int:
        """Append a record; return the position after it, to wait for.

        Args:
            kind: what the record is, 0 to 255.
            body: what it says; it must not be changed afterwards.
            summed: whether the record's checksum shall cover the body.
            awaited: whether somebody will soon wait for this or a later record: until then there is
                no hurry, and what comes meanwhile is written with it.

        Raises:
            JournalError: if an earlier record could not be written.

        """
        if self._error is not None:
            raise self._error
        self._pending += (frame(kind, body, summed=summed), body)
        self._end += FRAME_BYTES + len(body)
        self._pending_bytes += FRAME_BYTES + len(body)
        if not awaited or self._pending_bytes >= _ENOUGH_BYTES:
            self._soon()
        return self._end

    async def durable(self, position: int) -> None:
        """Return once everything before ``position`` is durable.

        Raises:
            JournalError: if it could not be written.

        """
        if self._error is not None:
            raise self._error
        if position <= self._durable:
            return
        done = self._loop.create_future()
        self._waiting.append((position, done))
        self._soon()
        await done

    async def close(self) -> None:
        """Write what is pending and end the thread; a second call changes nothing."""
        if self._closed:
            return
        self._closed = True
        while self._error is None and (self._pending or self._writing):
            self._write_pending()
            if self._writing is not None:
                await asyncio.wait((self._writing,))
        self._writer.shutdown()
        os.close(self._file)

    def release(self, before: int) -> None:
        """Delete the segments that hold nothing from position ``before`` on, from any thread."""
        starts = segment_starts(self._directory)
        for start, following in itertools.pairwise(starts):
            if following <= before:
                segment_path(self._directory, start).unlink(missing_ok=True)

    def _soon(self) -> None:
        """Write when the loop has done what it is about: others may append until then."""
        if not self._due and self._writing is None:
            self._begin_in_turn()
        self._due = True

    def _begin_in_turn(self) -> None:
        wait_s = self._next_s - self._loop.time()
        if wait_s > 0:
            self._loop.call_later(wait_s, self._write_pending)
        else:
            self._loop.call_soon(self._write_pending)

    def _write_pending(self) -> None:
        if self._writing is not None:
            return  # its end comes back here
        self._due = False
        self._next_s = self._loop.time() + _GATHER_S
        if not self._pending or self._error is not None:
            return
        pieces, self._pending = self._pending, []
        self._pending_bytes = 0
        end = self._end
        self._writing = self._loop.run_in_executor(self._writer, self._write, pieces, end)
        self._writing.add_done_callback(lambda writing: self._written(writing, end))

    def _written(self, writing: asyncio.Future[None], end: int) -> None:
        self._writing = None
        error = writing.exception()
        if error is not None:
            self._error = error if isinstance(error, JournalError) else JournalError(str(error))
            self._fail(self._error)
            return
        self._now_durable(end)
        if self._due:
            self._begin_in_turn()

    def _write(self, pieces: Sequence[bytes | memoryview], end: int) -> None:
        with refusals(f"write the journal in {self._directory}"):
            self._write_through(pieces, end)

    def _write_through(self, pieces: Sequence[bytes | memoryview], end: int) -> None:
        for first in range(0, len(pieces), _MOST_PIECES):
            _write_whole(self._file, pieces[first : first + _MOST_PIECES])
        if self._sync:
            os.fdatasync(self._file)
        if end - self._start > self._segment_bytes:
            os.close(self._file)
            self._start = end
            self._file = os.open(
                segment_path(self._directory, end), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644
            )
            sync_directory(self._directory)

    def _now_durable(self, end: int) -> None:
        self._durable = end
        waiting, self._waiting = self._waiting, []
        for position, done in waiting:
            if position > end:
                self._waiting.append((position, done))
            elif not done.done():
                done.set_result(None)

    def _fail(self, error: JournalError) -> None:
        waiting, self._waiting = self._waiting, []
        for _, done in waiting:
            if not done.done():
                done.set_exception(error)


def replay(directory: Path, intact: Callable[[int, memoryview], bool]) -> Iterator[Record]:
    """Yield all records that a directory holds, and cut off a torn end.

    Args:
        directory: where the segments lie; none are there before the first record.
        intact: see :func:`~fadelab_server.journal.segments.read_segment`.

    Raises:
        JournalError: if a record before the last segment's end is damaged.

    """
    starts = segment_starts(directory)
    for start, following in itertools.zip_longest(starts, starts[1:]):
        end = start
        path = segment_path(directory, start)
        with refusals(f"read the journal in {directory}"):
            for record in read_segment(path, start, intact):
                end = record.end
                yield record
            if following is None:
                os.truncate(path, end - start)
            elif end != following:
                raise JournalError(f"{path} is damaged at byte {end - start}")


def _write_whole(file: int, pieces: Sequence[bytes | memoryview]) -> None:
    left = list(pieces)
    while left:
        written = os.writev(file, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = memoryview(left[0])[written:]
