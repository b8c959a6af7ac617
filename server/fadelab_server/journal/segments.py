"""The files of the log: records one after the other, cut into segments.

A record is (little-endian) its body's length as u32, its kind as u8, whether its checksum covers the
body as u8, two zero bytes, that CRC-32C (RFC 3720, section 12.1) of these eight bytes and of the body
as u32, then the body. Bodies that carry a checksum of their own are left out of the record's, so that
large ones are summed only once.

A position is the number of bytes in all segments before it, also those that were deleted; a
segment's name is the position at which it begins.
"""

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fadelab_proto.checksum import checksum
from fadelab_server.checkpoint import CheckpointError

_HEAD = struct.Struct("<IB?2x")
_CHECKSUM = struct.Struct("<I")
FRAME_BYTES = _HEAD.size + _CHECKSUM.size
_SUFFIX = ".log"


class JournalError(CheckpointError):
    """The journal cannot be written or read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the log."""

    position: int
    """Where it begins."""
    kind: int
    body: memoryview

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.position + FRAME_BYTES + len(self.body)


def frame(kind: int, body: bytes | memoryview, *, summed: bool) -> bytes:
    """Return what stands before a body in the log.

    Args:
        kind: the record's kind, 0 to 255.
        body: what it says.
        summed: whether the record's checksum covers the body.

    """
    head = _HEAD.pack(len(body), kind, summed)
    return head + _CHECKSUM.pack(_checksum(head, body, summed=summed))


def _checksum(head: bytes, body: bytes | memoryview, *, summed: bool) -> int:
    return checksum((head, body) if summed else (head,))


def segment_path(directory: Path, position: int) -> Path:
    """Return the file of the segment that begins at a position."""
    return directory / f"{position:016d}{_SUFFIX}"


def segment_starts(directory: Path) -> list[int]:
    """Return where the segments in a directory begin, in order."""
    return sorted(int(path.stem) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def read_segment(
    path: Path, start: int, intact: Callable[[int, memoryview], bool]
) -> Iterator[Record]:
    """Yield a segment's records up to the first that is not whole.

    Args:
        path: the segment's file.
        start: the position at which it begins.
        intact: for a kind and a body whether the checksum that the body itself carries is right;
            True for bodies that have none.

    """
    data = memoryview(path.read_bytes())
    offset = 0
    while (record := _record_at(data, offset, start, intact)) is not None:
        yield record
        offset = record.end - start


def _record_at(
    data: memoryview, offset: int, start: int, intact: Callable[[int, memoryview], bool]
) -> Record | None:
    body_at = offset + FRAME_BYTES
    if body_at > len(data):
        return None
    head = bytes(data[offset : offset + _HEAD.size])
    length, kind, summed = _HEAD.unpack(head)
    body = data[body_at : body_at + length]
    if len(body) < length:
        return None
    (declared,) = _CHECKSUM.unpack(data[offset + _HEAD.size : body_at])
    if declared != _checksum(head, body, summed=summed):
        return None
    return Record(start + offset, kind, body) if intact(kind, body) else None


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what the file system refuses into a :class:`JournalError` that says what was tried."""
    try:
        yield
    except OSError as error:
        raise JournalError(f"cannot {what}: {error}") from error
