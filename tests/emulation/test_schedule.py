"""The recorded timeline: round trip, prefixes, torn tails, contact windows."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import BoolArray, LinkTick
from fadelab_emulation.schedule import COLUMNS, ScheduleReader, ScheduleWriter, contact_windows
from fadelab_emulation.world import RadioWorld

same_folder = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_tick(index: int, devices: int, tick_s: float) -> LinkTick:
    draw = np.random.default_rng(index)
    values = {name: draw.random(devices) * 1e6 for name in COLUMNS}
    return LinkTick(index=index, t_s=index * tick_s, is_open=draw.random(devices) < 0.5, **values)


def tick_of(index: int, is_open: BoolArray) -> LinkTick:
    values = {name: np.zeros(len(is_open)) for name in COLUMNS}
    return LinkTick(index=index, t_s=index * 0.5, is_open=is_open, **values)


def record(path: Path, ticks: list[LinkTick], devices: int, tick_s: float = 0.1) -> bytes:
    path.unlink(missing_ok=True)
    with ScheduleWriter(path, devices, tick_s, seed=7) as writer:
        for tick in ticks:
            writer.write(tick)
    return path.read_bytes()


def world_file(path: Path, ticks: int, seed: int = 7) -> bytes:
    config = RadioConfig.model_validate(
        {
            "mobility": {"kind": "random_waypoint", "speed_mps": [15, 30]},
            "shadowing": {"std_db": 3},
            "fading": {"kind": "rayleigh", "coherence_s": 0.3},
            "rate": {"kind": "shannon", "bandwidth_hz": 200e3},
            "contact": {"kind": "coverage", "radius_m": 150},
        }
    )
    world = RadioWorld(config, 5, seed)
    path.unlink(missing_ok=True)
    with ScheduleWriter(path, 5, config.tick_s, seed) as writer:
        for _ in range(ticks):
            writer.write(world.step())
    return path.read_bytes()


@same_folder
@given(devices=st.integers(1, 20), count=st.integers(0, 12), tick_s=st.floats(0.01, 10.0))
def test_what_was_written_is_read(tmp_path: Path, devices: int, count: int, tick_s: float) -> None:
    ticks = [random_tick(index, devices, tick_s) for index in range(count)]
    record(tmp_path / "links", ticks, devices, tick_s)
    reader = ScheduleReader(tmp_path / "links")
    assert (reader.devices, reader.tick_s, reader.seed) == (devices, tick_s, 7)
    assert reader.ticks == count
    assert reader.t_s.tolist() == [tick.t_s for tick in ticks]
    assert reader.is_open.shape == (count, devices)
    for index, tick in enumerate(ticks):
        assert np.array_equal(reader.is_open[index], tick.is_open)
        for name in COLUMNS:
            assert np.array_equal(reader.column(name)[index], getattr(tick, name).astype("f4"))


@same_folder
@given(data=st.data(), devices=st.integers(1, 9), count=st.integers(1, 5))
def test_a_torn_tail_is_left_out(
    tmp_path: Path, data: st.DataObject, devices: int, count: int
) -> None:
    ticks = [random_tick(index, devices, 0.1) for index in range(count)]
    whole = record(tmp_path / "links", ticks, devices)
    header = whole.index(b"\n") + 1
    size = (len(whole) - header) // count
    cut = data.draw(st.integers(header, len(whole)))
    (tmp_path / "torn").write_bytes(whole[:cut])
    reader = ScheduleReader(tmp_path / "torn")
    assert reader.ticks == (cut - header) // size
    assert np.array_equal(
        reader.column("x_m"), ScheduleReader(tmp_path / "links").column("x_m")[: reader.ticks]
    )


def test_a_shorter_run_is_a_prefix_of_a_longer_one_and_another_seed_is_not(tmp_path: Path) -> None:
    short, long = world_file(tmp_path / "a", 40), world_file(tmp_path / "b", 90)
    assert world_file(tmp_path / "c", 90) == long
    assert long.startswith(short)
    assert len(long) > len(short)
    other = world_file(tmp_path / "d", 90, seed=8)
    assert len(other) == len(long)
    assert other[other.index(b"\n") :] != long[long.index(b"\n") :]


def test_every_tick_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with ScheduleWriter(tmp_path / "links", 3, 0.1, 7) as writer:
        for index in range(3):
            writer.write(random_tick(index, 3, 0.1))
            assert ScheduleReader(tmp_path / "links").ticks == index + 1


def test_a_skipped_tick_is_refused(tmp_path: Path) -> None:
    with ScheduleWriter(tmp_path / "links", 3, 0.1, 7) as writer:
        writer.write(random_tick(0, 3, 0.1))
        with pytest.raises(ValueError, match="tick 1 is due in the schedule, not tick 2"):
            writer.write(random_tick(2, 3, 0.1))


def test_a_tick_of_another_size_is_refused(tmp_path: Path) -> None:
    with ScheduleWriter(tmp_path / "links", 3, 0.1, 7) as writer:
        for devices in (1, 4):
            with pytest.raises(ValueError, match=f"of 3 devices, not of {devices}"):
                writer.write(random_tick(0, devices, 0.1))


def test_a_run_does_not_overwrite_a_schedule(tmp_path: Path) -> None:
    record(tmp_path / "links", [], 3)
    with pytest.raises(FileExistsError):
        ScheduleWriter(tmp_path / "links", 3, 0.1, 7)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "missing or unfinished"),
        (b'{"format": "fadelab-sch', "missing or unfinished"),
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


def test_a_header_of_a_later_version_is_refused(tmp_path: Path) -> None:
    whole = record(tmp_path / "links", [], 3)
    header = json.loads(whole)
    (tmp_path / "links").write_text(json.dumps({**header, "version": 2}) + "\n")
    with pytest.raises(ValueError, match="no link schedule that this version can read"):
        ScheduleReader(tmp_path / "links")


def test_a_missing_record_in_the_middle_is_noticed(tmp_path: Path) -> None:
    whole = record(tmp_path / "links", [random_tick(i, 2, 0.1) for i in range(4)], 2)
    header = whole.index(b"\n") + 1
    size = (len(whole) - header) // 4
    (tmp_path / "links").write_bytes(whole[: header + size] + whole[header + 2 * size :])
    with pytest.raises(ValueError, match="tick 2 stands where tick 1 belongs"):
        ScheduleReader(tmp_path / "links")


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    record(tmp_path / "links", [], 2)
    with pytest.raises(KeyError, match="no column 'altitude'"):
        ScheduleReader(tmp_path / "links").column("altitude")


def test_contact_windows_by_hand(tmp_path: Path) -> None:
    flags = np.array(
        [[0, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]],
        dtype=np.bool_,
    )
    ticks = [tick_of(index, row) for index, row in enumerate(flags)]
    record(tmp_path / "links", ticks, 3, tick_s=0.5)
    windows = contact_windows(ScheduleReader(tmp_path / "links"))
    assert windows == [[(0.5, 1.5), (2.0, 2.5)], [(0.0, 1.0), (2.0, 2.5)], []]


def test_a_recording_without_ticks_has_no_windows(tmp_path: Path) -> None:
    record(tmp_path / "links", [], 2)
    assert contact_windows(ScheduleReader(tmp_path / "links")) == [[], []]
