"""Replay: the recorded numbers bit for bit, what happens at the end, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from timelines import assert_same_in_float32, moving, random_tick, record, recording, terms

from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.timeline.config import AnyTimeline
from fadelab_emulation.timeline.replay import AtEnd, Replay, ReplayConfig
from fadelab_emulation.world import RadioWorld

same_folder = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sane_tick(index: int, devices: int) -> LinkTick:
    """A tick that could have been carried out."""
    random = random_tick(index, devices)
    return replace(random, predicted_contact_s=np.where(random.is_open, 30.0, 0.0))


def replay(
    path: Path, ticks: Sequence[LinkTick], at_end: AtEnd, *, devices: int | None = None
) -> Replay:
    reader = recording(path, ticks)
    return Replay(reader, devices or reader.devices, at_end)


def test_a_replayed_runs_recording_is_the_original_byte_for_byte(tmp_path: Path) -> None:
    config, lanes = moving(), ("default", "urgent")
    world = RadioWorld(config, 6, 7)
    original = record(tmp_path / "links", [world.step() for _ in range(150)], lanes=lanes)
    again = ReplayConfig(path=tmp_path / "links").build(
        terms(6, config.tick_s, classes=tuple(config.classes))
    )
    ticks = [again.step() for _ in range(150)]
    assert record(tmp_path / "again", ticks, lanes=lanes) == original
    assert len(original) > 150 * 6 * 20


@same_folder
@given(devices=st.integers(1, 6), count=st.integers(1, 5), fewer=st.integers(0, 5))
def test_fewer_devices_are_the_first_ones(
    tmp_path: Path, devices: int, count: int, fewer: int
) -> None:
    ticks = [sane_tick(index, devices) for index in range(count)]
    kept = max(1, devices - fewer)
    source = replay(tmp_path / "links", ticks, AtEnd.CLOSE, devices=kept)
    few = recording(tmp_path / "few", [source.step() for _ in range(count)])
    whole = ScheduleReader(tmp_path / "links")
    assert np.array_equal(few.is_open, whole.is_open[:, :kept])
    for name in ("x_m", "rate_up_bps", "loss_down", "predicted_contact_s"):
        assert np.array_equal(few.column(name), whole.column(name)[:, :kept])


@pytest.mark.parametrize("at_end", AtEnd)
def test_ticks_go_on_being_numbered_and_timed(tmp_path: Path, at_end: AtEnd) -> None:
    source = replay(tmp_path / "links", [sane_tick(i, 2) for i in range(3)], at_end)
    ticks = [source.step() for _ in range(8)]
    assert [tick.index for tick in ticks] == list(range(8))
    assert [tick.t_s for tick in ticks] == [index * 0.1 for index in range(8)]


def test_a_loop_begins_again(tmp_path: Path) -> None:
    ticks = [sane_tick(index, 3) for index in range(4)]
    source = replay(tmp_path / "links", ticks, AtEnd.LOOP)
    for index in range(11):
        expected = replace(ticks[index % 4], index=index, t_s=index * 0.1)
        assert_same_in_float32(source.step(), expected)


def test_a_hold_keeps_the_last_state(tmp_path: Path) -> None:
    ticks = [sane_tick(index, 3) for index in range(2)]
    source = replay(tmp_path / "links", ticks, AtEnd.HOLD)
    source.step()
    for index in range(1, 5):
        assert_same_in_float32(source.step(), replace(ticks[1], index=index, t_s=index * 0.1))


def test_at_the_end_all_links_close(tmp_path: Path) -> None:
    ticks = [replace(sane_tick(i, 3), is_open=np.ones(3, dtype=np.bool_)) for i in range(2)]
    source = replay(tmp_path / "links", ticks, AtEnd.CLOSE)
    states = [source.step() for _ in range(4)]
    assert [bool(state.is_open.all()) for state in states] == [True, True, False, False]
    assert not states[2].is_open.any()
    assert states[2].predicted_contact_s.max() == 0
    assert states[2].rate_up_bps == pytest.approx(states[1].rate_up_bps)


def test_a_power_is_refused(tmp_path: Path) -> None:
    source = replay(tmp_path / "links", [sane_tick(0, 3)], AtEnd.LOOP)
    with pytest.raises(
        ValueError, match=r"device 1 asked for 0\.1 W, but a replayed timeline does not depend"
    ):
        source.set_uplink_power(1, 0.1)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"devices": 4}, "was recorded with 3 devices and cannot be replayed for 4"),
        ({"tick_s": 0.2}, r"ticks of 0\.1 s and cannot be replayed in ticks of 0\.2 s"),
        (
            {"classes": tuple(moving().classes)},
            r"the packet classes \(none besides the default one\) and cannot .* with urgent",
        ),
    ],
)
def test_a_recording_that_does_not_fit_is_refused(
    tmp_path: Path, asked: dict[str, Any], sentence: str
) -> None:
    record(tmp_path / "links", [sane_tick(0, 3)])
    with pytest.raises(ValueError, match=sentence):
        ReplayConfig(path=tmp_path / "links").build(replace(terms(3), **asked))


def test_an_empty_recording_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "links", [], devices=3)
    with pytest.raises(ValueError, match="holds no tick to replay"):
        ReplayConfig(path=tmp_path / "links").build(terms(3))


def lane(rate_bps: float, loss: float) -> tuple[Lane]:
    good = np.zeros(3)
    return (Lane(np.array([1e6, 1e6, rate_bps]), PacketLoss(good, good + loss, good, good + 1)),)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"up": lane(-1, 0)}, r"the up\[0\]\.rate_bps of device 2 in tick 1 is -1"),
        ({"down": lane(1e13, 0)}, r"down\[0\]\.rate_bps .* is 1e\+13, .* between 0 and 1e\+12"),
        ({"up": lane(float("nan"), 0)}, r"rate_bps of device 2 in tick 1 is nan"),
        ({"up": lane(1e6, 1.5)}, r"in_bad of device 0 in tick 1 is 1\.5"),
        ({"delay_up_s": np.full(3, 1e9)}, "the delay_up_s of device 0 in tick 1"),
        ({"jitter_down_s": np.full(3, -0.1)}, r"the jitter_down_s .* is -0\.1"),
        ({"predicted_contact_s": np.full(3, np.inf)}, "the predicted_contact_s .* is inf"),
    ],
)
def test_absurd_values_are_refused_before_anything_is_carried_out(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    ticks = [sane_tick(0, 3), replace(sane_tick(1, 3), **change)]
    with pytest.raises(ValueError, match=sentence):
        replay(tmp_path / "links", ticks, AtEnd.LOOP)


def test_every_timeline_is_configured_by_its_kind(tmp_path: Path) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyTimeline)
    found = [
        adapter.validate_python(tree)
        for tree in (
            {"kind": "replay", "path": str(tmp_path), "at_end": "loop"},
            {"kind": "mahimahi", "up": "a.up", "down": "a.down", "start": "staggered"},
            {"kind": "csv", "path": "a.csv", "period_s": 60},
        )
    ]
    assert [config.kind for config in found] == ["replay", "mahimahi", "csv"]
