"""The append-only log: nothing durable is lost, a torn end is cut off, segments come and go."""

import asyncio
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fadelab_server.journal import JournalError, Log, Reader, replay
from fadelab_server.journal import log as log_module
from fadelab_server.journal.segments import FRAME_BYTES, segment_path, segment_starts

bodies = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=12)


def whole(kind: int, body: memoryview) -> bool:
    """Stand for bodies without checksums of their own."""
    return True


def write(
    directory: Path, records: Sequence[tuple[int, bytes]], segment_bytes: int = 1 << 26
) -> list[int]:
    """Append records one after the other, each durable before the next; return their ends."""

    async def run() -> list[int]:
        log = Log(directory, segment_bytes=segment_bytes, sync=False)
        ends = []
        for kind, body in records:
            ends.append(log.append(kind, body))
            await log.durable(ends[-1])
        await log.close()
        return ends

    return asyncio.run(run())


def read(directory: Path) -> list[tuple[int, bytes]]:
    return [(record.kind, bytes(record.body)) for record in replay(directory, whole)]


@settings(max_examples=40, deadline=None)
@given(bodies, st.integers(20, 200))
def test_what_was_written_is_read_from_all_segments(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[int, bytes]], segment_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("log")
    write(directory, records, segment_bytes)
    assert read(directory) == records
    write(directory, records, segment_bytes)
    assert read(directory) == records + records


@settings(max_examples=60, deadline=None)
@given(bodies, st.data())
def test_a_torn_end_is_cut_off_and_written_over(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("log")
    ends = write(directory, records)
    path = segment_path(directory, 0)
    size = path.stat().st_size
    cut = data.draw(st.integers(0, size), label="cut")
    content = bytearray(path.read_bytes()[:cut])
    if content and data.draw(st.booleans(), label="garbled"):
        content[data.draw(st.integers(0, len(content) - 1), label="at")] ^= 0x55
        path.write_bytes(content)
        found = read(directory)
        assert found == records[: len(found)]
        return
    path.write_bytes(content)
    kept = sum(end <= cut for end in ends)
    assert read(directory) == records[:kept]
    assert path.stat().st_size == ([0, *ends][kept])
    write(directory, [(7, b"afterwards")])
    assert read(directory) == [*records[:kept], (7, b"afterwards")]


def test_damage_before_the_last_segment_is_no_torn_end(tmp_path: Path) -> None:
    write(tmp_path, [(1, bytes(30)), (2, bytes(30)), (3, bytes(30))], segment_bytes=20)
    first = segment_path(tmp_path, 0)
    first.write_bytes(first.read_bytes()[:-1] + b"\1")
    with pytest.raises(JournalError, match=r"0\.log is damaged at byte 0"):
        read(tmp_path)


def test_a_body_may_vouch_for_itself(tmp_path: Path) -> None:
    async def run() -> None:
        log = Log(tmp_path, sync=False)
        log.append(1, b"sums itself", summed=False)
        await log.durable(log.append(2, b"is summed"))
        await log.close()

    asyncio.run(run())
    path = segment_path(tmp_path, 0)
    damaged = path.read_bytes().replace(b"itself", b"ITSELF")
    path.write_bytes(damaged)
    assert len(read(tmp_path)) == 2
    path.write_bytes(damaged)
    assert list(replay(tmp_path, lambda kind, body: kind != 1)) == []


def test_many_wait_for_one_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes = []
    monkeypatch.setattr(log_module.os, "fdatasync", flushes.append)

    async def run() -> None:
        log = Log(tmp_path)
        ends = [log.append(1, bytes(100)) for _ in range(500)]
        await asyncio.gather(*(log.durable(end) for end in ends))
        assert log.backlog_bytes == 0
        await log.close()

    asyncio.run(run())
    assert len(read(tmp_path)) == 500
    assert 1 <= len(flushes) <= 3


def test_a_full_disk_is_told_to_all_who_wait_and_to_those_who_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, pieces: Sequence[bytes]) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def run() -> None:
        log = Log(tmp_path, sync=False)
        kept = log.append(1, b"kept")
        await log.durable(kept)
        monkeypatch.setattr(log_module.os, "writev", full)
        lost = log.append(1, b"lost")
        for position in (lost, lost):
            with pytest.raises(JournalError, match="No space left"):
                await log.durable(position)
        with pytest.raises(JournalError, match="No space left"):
            log.append(1, b"too late")
        await log.close()

    asyncio.run(run())
    assert read(tmp_path) == [(1, b"kept")]


def test_writes_in_pieces_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev

    def little(file: int, pieces: Sequence[bytes]) -> int:
        return real(file, [bytes(pieces[0])[:3]])

    monkeypatch.setattr(log_module.os, "writev", little)
    write(tmp_path, [(1, b"some words"), (2, b""), (3, b"more words")])
    assert read(tmp_path) == [(1, b"some words"), (2, b""), (3, b"more words")]


def test_old_segments_are_released_and_their_positions_stay_taken(tmp_path: Path) -> None:
    async def run() -> Iterator[int]:
        log = Log(tmp_path, segment_bytes=20, sync=False)
        starts = []
        for number in range(4):
            starts.append(log.end)
            await log.durable(log.append(number, bytes([number]) * 30))
        log.release(starts[2])
        await log.close()
        return iter(starts)

    starts = list(asyncio.run(run()))
    assert starts == [number * (FRAME_BYTES + 30) for number in range(4)]
    assert segment_starts(tmp_path)[0] == starts[2]
    assert [record.position for record in replay(tmp_path, whole)] == starts[2:]


def test_bodies_are_read_back_in_any_order_while_segments_come_and_go(tmp_path: Path) -> None:
    async def run() -> None:
        log, reader = Log(tmp_path, segment_bytes=20, sync=False), Reader(tmp_path)
        starts = []
        for number in range(6):
            starts.append(log.end)
            await log.durable(log.append(number, bytes([number]) * 30))
            for known in (number, number // 2):
                assert reader.body(starts[known], 30) == bytes([known]) * 30
        log.release(starts[3])
        reader.close()
        assert reader.body(starts[3], 30) == bytes([3]) * 30
        with pytest.raises(JournalError, match="cannot read the journal"):
            reader.body(starts[1], 30)
        with pytest.raises(JournalError, match=f"no whole record at {log.end}"):
            reader.body(log.end, 30)
        reader.close()
        await log.close()

    asyncio.run(run())


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    async def run() -> None:
        Log(blocked / "journal")

    with pytest.raises(JournalError, match=r"cannot open the journal in .*file/journal"):
        asyncio.run(run())
