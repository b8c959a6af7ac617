"""The recorded timeline: round trip, prefixes, torn tails, damage, contact windows."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timelines import assert_same_in_float32, moving, random_tick, record, recording

from fadelab_emulation.link_state import BoolArray, LinkTick, plain_tick
from fadelab_emulation.schedule import COLUMNS, ScheduleReader, ScheduleWriter, contact_windows
from fadelab_emulation.world import RadioWorld

same_folder = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HEAD_BYTES = 16


def tick_of(index: int, is_open: BoolArray) -> LinkTick:
    zeros = np.zeros(len(is_open))
    return plain_tick(zeros, zeros, index=index, t_s=index * 0.5, is_open=is_open)


def partly_repeated(index: int, devices: int, lanes: int, repeats: list[bool]) -> LinkTick:
    """A tick of which every attribute is the one before's where ``repeats`` says so."""
    if index == 0:
        return random_tick(0, devices, lanes=lanes)
    before, new = (random_tick(i, devices, lanes=lanes) for i in (index - 1, index))
    names = ("x_m", "site", "snr_up_db", "up", "down", "delay_up_s", "is_open")
    kept = {name: getattr(before, name) for name, same in zip(names, repeats, strict=True) if same}
    return replace(new, **kept)


def world_file(path: Path, ticks: int, seed: int = 7) -> bytes:
    config = moving()
    world = RadioWorld(config, 5, seed)
    path.unlink(missing_ok=True)
    with ScheduleWriter(path, 5, config.tick_s, seed, ("default", "urgent")) as writer:
        for _ in range(ticks):
            writer.write(world.step())
    return path.read_bytes()


def body_start(whole: bytes) -> int:
    return whole.index(b"\n") + 1


def record_ends(whole: bytes) -> list[int]:
    ends, position = [], body_start(whole)
    while position < len(whole):
        length = int.from_bytes(whole[position + 4 : position + 8], "little")
        position += HEAD_BYTES + length
        ends.append(position)
    return ends


@same_folder
@given(
    data=st.data(),
    devices=st.integers(1, 20),
    lanes=st.integers(1, 8),
    count=st.integers(0, 6),
    tick_s=st.floats(0.01, 10.0),
)
def test_what_was_written_is_read(
    tmp_path: Path, data: st.DataObject, devices: int, lanes: int, count: int, tick_s: float
) -> None:
    repeated = st.lists(st.booleans(), min_size=7, max_size=7)
    ticks = [
        replace(partly_repeated(i, devices, lanes, data.draw(repeated)), t_s=i * tick_s)
        for i in range(count)
    ]
    names = [f"class-{number}" for number in range(lanes)]
    reader = recording(tmp_path / "links", ticks, tick_s=tick_s, devices=devices, lanes=names)
    assert (reader.devices, reader.tick_s, reader.seed) == (devices, tick_s, 7)
    assert (reader.ticks, reader.lanes) == (count, tuple(names))
    assert reader.t_s.tolist() == [tick.t_s for tick in ticks]
    for index, tick in enumerate(ticks):
        assert_same_in_float32(reader.tick(index), tick)


def test_columns_are_those_of_the_ticks(tmp_path: Path) -> None:
    ticks = [random_tick(index, 4, lanes=3) for index in range(5)]
    ticks[2] = replace(ticks[2], x_m=ticks[1].x_m, up=ticks[1].up, is_open=ticks[1].is_open)
    reader = recording(tmp_path / "links", ticks, lanes="abc")
    assert np.array_equal(reader.is_open, [tick.is_open for tick in ticks])
    for name in COLUMNS:
        expected = np.array([getattr(tick, name) for tick in ticks])
        # Totals and mean losses are computed from numbers that are rounded already.
        assert reader.column(name) == pytest.approx(expected, rel=1e-6)
    for lane in range(3):
        for uplink in (True, False):
            side = [(tick.up if uplink else tick.down)[lane] for tick in ticks]
            rate_bps = np.array([part.rate_bps for part in side], dtype=np.float32)
            assert np.array_equal(reader.lane_rate_bps(lane, uplink=uplink), rate_bps)
            to_bad = np.array([part.loss.to_bad for part in side], dtype=np.float32)
            assert np.array_equal(reader.lane_loss(lane, uplink=uplink).to_bad, to_bad)


def test_numbers_that_are_none_are_kept_bit_for_bit(tmp_path: Path) -> None:
    strange = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-44])
    ticks = [replace(random_tick(i, 5), snr_up_db=strange, x_m=-strange) for i in range(2)]
    reader = recording(tmp_path / "links", ticks)
    for index in range(2):
        assert reader.tick(index).snr_up_db.astype("f4").tobytes() == strange.astype("f4").tobytes()
    # Equal bits are no change, though a NaN is not equal to itself.
    ends = record_ends(record(tmp_path / "links", [ticks[0], replace(ticks[0], index=1)]))
    assert ends[1] - ends[0] == HEAD_BYTES + 3


def test_a_tick_like_the_one_before_costs_a_head_and_a_mask(tmp_path: Path) -> None:
    same = [replace(random_tick(0, 1000), index=index) for index in range(3)]
    ends = record_ends(record(tmp_path / "links", same))
    assert [b - a for a, b in itertools.pairwise(ends)] == [HEAD_BYTES + 3] * 2
    moved = replace(same[1], x_m=same[1].x_m + 1)
    ends = record_ends(record(tmp_path / "links", [same[0], moved]))
    assert ends[1] - ends[0] == HEAD_BYTES + 3 + 4 * 1000


@same_folder
@given(data=st.data(), devices=st.integers(1, 9), count=st.integers(1, 5))
def test_a_torn_tail_is_left_out(
    tmp_path: Path, data: st.DataObject, devices: int, count: int
) -> None:
    ticks = [random_tick(index, devices) for index in range(count)]
    whole = record(tmp_path / "links", ticks)
    cut = data.draw(st.integers(body_start(whole), len(whole)))
    (tmp_path / "torn").write_bytes(whole[:cut])
    reader = ScheduleReader(tmp_path / "torn")
    assert reader.ticks == sum(end <= cut for end in record_ends(whole))
    for index in range(reader.ticks):
        assert_same_in_float32(reader.tick(index), ticks[index])


@same_folder
@given(data=st.data())
def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path: Path, data: st.DataObject) -> None:
    whole = record(tmp_path / "links", [random_tick(index, 3) for index in range(4)])
    place = data.draw(st.integers(body_start(whole), len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    changed = whole[:place] + bytes([whole[place] ^ other]) + whole[place + 1 :]
    (tmp_path / "links").write_bytes(changed)
    with pytest.raises(ValueError, match=r"is damaged: the record of tick [0-3] has been altered"):
        ScheduleReader(tmp_path / "links")


@same_folder
@given(rubbish=st.binary(max_size=200), devices=st.integers(1, 10**6))
def test_rubbish_behind_a_header_is_damaged_or_unfinished(
    tmp_path: Path, rubbish: bytes, devices: int
) -> None:
    header = record(tmp_path / "links", [], devices=devices)
    (tmp_path / "links").write_bytes(header + rubbish)
    if len(rubbish) < HEAD_BYTES:
        assert ScheduleReader(tmp_path / "links").ticks == 0
    else:
        with pytest.raises(ValueError, match="is damaged"):
            ScheduleReader(tmp_path / "links")


def forged(index: int, length: int, content: bytes) -> bytes:
    """A record whose checksums are right, whatever it says."""
    crc = google_crc32c.value
    numbers = b"".join(n.to_bytes(4, "little") for n in (index, length, crc(content)))
    return numbers + crc(numbers).to_bytes(4, "little") + content


@pytest.mark.parametrize(
    ("index", "length", "content", "sentence"),
    [
        (0, 2**32 - 1, b"", "tick 0 cannot be 4294967295 bytes long"),
        (0, 2, b"ab", "tick 0 cannot be 2 bytes long"),
        (0, 3, b"\0\0\xff", "names columns that there are not"),
        (0, 3, b"\1\0\0", "is 3 bytes long, its columns are 11"),
        (0, 5, b"\0\0\0ab", "is 5 bytes long, its columns are 3"),
        (9, 3, b"\0\0\0", "tick 9 stands where tick 0 belongs"),
    ],
)
def test_a_forged_record_is_refused(
    tmp_path: Path, index: int, length: int, content: bytes, sentence: str
) -> None:
    header = record(tmp_path / "links", [], devices=2)
    (tmp_path / "links").write_bytes(header + forged(index, length, content))
    with pytest.raises(ValueError, match=f"is damaged: .*{sentence}"):
        ScheduleReader(tmp_path / "links")


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    header = record(tmp_path / "links", [], devices=10**6)
    empty = b"".join(forged(index, 3, b"\0\0\0") for index in range(300))
    (tmp_path / "links").write_bytes(header + empty)
    reader = ScheduleReader(tmp_path / "links")
    assert reader.ticks == 300
    for unfold in (lambda: reader.is_open, lambda: reader.column("x_m")):
        with pytest.raises(ValueError, match="300 ticks of 1000000 devices, more than can be"):
            unfold()
    assert not reader.tick(299, devices=3).is_open.any()


def test_a_shorter_run_is_a_prefix_of_a_longer_one_and_another_seed_is_not(tmp_path: Path) -> None:
    short, long = world_file(tmp_path / "a", 40), world_file(tmp_path / "b", 90)
    assert world_file(tmp_path / "c", 90) == long
    assert long.startswith(short)
    assert len(long) > len(short)
    other = world_file(tmp_path / "d", 90, seed=8)
    assert other[other.index(b"\n") :] != long[long.index(b"\n") :]


def test_every_tick_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with ScheduleWriter(tmp_path / "links", 3, 0.1, 7) as writer:
        for index in range(3):
            writer.write(random_tick(index, 3))
            assert ScheduleReader(tmp_path / "links").ticks == index + 1


def test_a_skipped_tick_is_refused(tmp_path: Path) -> None:
    with ScheduleWriter(tmp_path / "links", 3, 0.1, 7) as writer:
        writer.write(random_tick(0, 3))
        with pytest.raises(ValueError, match="tick 1 is due in the schedule, not tick 2"):
            writer.write(random_tick(2, 3))


def test_a_tick_of_another_size_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with ScheduleWriter(tmp_path / "links", 3, 0.1, 7) as writer:
        for devices in (1, 4):
            with pytest.raises(ValueError, match=f"of 3 devices, not of {devices}"):
                writer.write(random_tick(0, devices))
        with pytest.raises(ValueError, match="of 1 packet classes, not of 2"):
            writer.write(random_tick(0, 3, lanes=2))
        writer.write(random_tick(0, 3))
    assert_same_in_float32(ScheduleReader(tmp_path / "links").tick(0), random_tick(0, 3))


def test_a_run_does_not_overwrite_a_schedule(tmp_path: Path) -> None:
    record(tmp_path / "links", [], devices=3)
    with pytest.raises(FileExistsError):
        ScheduleWriter(tmp_path / "links", 3, 0.1, 7)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "missing or unfinished"),
        (b'{"format": "fadelab-sch', "missing or unfinished"),
        (b"[" * 5000 + b"\n", "missing or unfinished"),
        (b"[" * 4000 + b"\n", "no link schedule that this version can read"),
        (b"\xff\xfe\n", "no link schedule that this version can read"),
        (b'{"format": "mahimahi"}\n', "no link schedule that this version can read"),
        (b"1\n2\n3\n", "no link schedule that this version can read"),
    ],
)
def test_a_file_that_is_no_schedule_is_refused(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "links").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        ScheduleReader(tmp_path / "links")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"version": 3},
        {"devices": 0},
        {"devices": 10**9},
        {"lanes": []},
        {"lanes": ["a"] * 9},
        {"tick_s": 0},
        {"tick_s": float("inf")},
        {"more": 1},
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    header = json.loads(record(tmp_path / "links", [], devices=3))
    (tmp_path / "links").write_text(json.dumps(header | change) + "\n")
    with pytest.raises(ValueError, match="no link schedule that this version can read"):
        ScheduleReader(tmp_path / "links")


def test_a_missing_record_in_the_middle_is_noticed(tmp_path: Path) -> None:
    whole = record(tmp_path / "links", [random_tick(i, 2) for i in range(4)])
    ends = record_ends(whole)
    (tmp_path / "links").write_bytes(whole[: ends[0]] + whole[ends[1] :])
    with pytest.raises(ValueError, match="tick 2 stands where tick 1 belongs"):
        ScheduleReader(tmp_path / "links")


def test_an_unknown_column_or_tick_is_named(tmp_path: Path) -> None:
    reader = recording(tmp_path / "links", [random_tick(0, 2)])
    with pytest.raises(KeyError, match="no column 'altitude'"):
        reader.column("altitude")
    for index in (-1, 1):
        with pytest.raises(IndexError, match=f"has 1 ticks and no tick {index}"):
            reader.tick(index)


def test_contact_windows_by_hand(tmp_path: Path) -> None:
    flags = np.array(
        [[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]],
        dtype=np.bool_,
    )
    ticks = [tick_of(index, row) for index, row in enumerate(flags)]
    windows = contact_windows(recording(tmp_path / "links", ticks, tick_s=0.5))
    assert windows == [[(0.5, 1.5), (2.0, 2.5)], [(0.0, 1.0), (2.0, 2.5)], []]


def test_a_recording_without_ticks_has_no_windows(tmp_path: Path) -> None:
    assert contact_windows(recording(tmp_path / "links", [], devices=2)) == [[], []]
