"""Reading single records back from the log."""

import os
from bisect import bisect_right
from pathlib import Path

from fadelab_server.journal.segments import (
    FRAME_BYTES,
    JournalError,
    refusals,
    segment_path,
    segment_starts,
)


class Reader:
    """Reads bodies of records that are durable, from one thread at a time.

    It keeps the segment open that it read last: packets of one update lie close together, and a
    thousand unfinished updates are thousands of packets.

    Args:
        directory: where the segments lie.

    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._starts: list[int] = []
        self._open: int | None = None
        """Where the segment begins that ``_file`` is."""
        self._file = -1

    def body(self, position: int, length: int) -> bytes:
        """Return the body, of this length, of the record at a position.

        Raises:
            JournalError: if it is not, or no longer, there.

        """
        with refusals(f"read the journal in {self._directory}"):
            body = self._body(position, length)
            if len(body) < length:
                # Since the last look, another segment may have been begun.
                self._starts = segment_starts(self._directory)
                body = self._body(position, length)
        if len(body) < length:
            raise JournalError(
                f"the journal in {self._directory} has no whole record at {position}"
            )
        return body

    def close(self) -> None:
        """Close the segment; another read opens it again."""
        if self._open is not None:
            os.close(self._file)
            self._open = None

    def _body(self, position: int, length: int) -> bytes:
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            return b""
        start = self._starts[index]
        if start != self._open:
            self.close()
            self._file = os.open(segment_path(self._directory, start), os.O_RDONLY)
            self._open = start
        return os.pread(self._file, length, position - start + FRAME_BYTES)
