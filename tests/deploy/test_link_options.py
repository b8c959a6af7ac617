"""From options to what links do, and everything that is refused on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.link.options import LinkOptions
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.link_state import plain_tick
from fadelab_emulation.schedule import ScheduleWriter
from fadelab_emulation.timeline.replay import AtEnd
from fadelab_emulation.window import BackendChoice, WindowMode

FIXED: dict[str, Any] = {"rate_up_bps": 5e6, "rate_down_bps": 20e6}


def complaint(**options: Any) -> str:
    with pytest.raises(FadelabError) as refused:
        LinkOptions(**options).job()
    assert refused.value.code == ExitCode.USAGE
    return str(refused.value)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "steady.trace"
    path.write_text("10\n20\n30\n")
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A run directory of three devices and two ticks, at 1, 2 and 3 Mbit/s, then twice as much."""
    folder = tmp_path / "run"
    folder.mkdir()
    with ScheduleWriter(folder / "links.schedule", 3, 0.25, 0) as writer:
        for index in range(2):
            rate_bps = (index + 1) * np.array([1e6, 2e6, 3e6])
            writer.write(plain_tick(rate_bps, rate_bps, index=index, t_s=0.25 * index))
    return folder


def test_fixed_rates_and_what_goes_with_them() -> None:
    job = LinkOptions(
        **FIXED, delay_up_s=0.03, jitter_up_s=0.01, loss_down=0.2, tick_s=0.5, devices=3
    ).job()
    tick = job.source().step()
    assert job.links.tick_s == 0.5
    assert tick.rate_up_bps.tolist() == [5e6] * 3
    assert tick.rate_down_bps.tolist() == [20e6] * 3
    assert tick.delay_up_s.tolist() == [0.03] * 3
    assert tick.jitter_up_s.tolist() == [0.01] * 3
    assert tick.loss_down.tolist() == [0.2] * 3
    assert tick.loss_up.tolist() == [0.0] * 3
    assert tick.is_open.all()


def test_wishes_for_windows_and_back_ends_are_kept() -> None:
    job = LinkOptions(**FIXED, window=WindowMode.DROP, backend=BackendChoice.RELAY).job()
    assert job.links.window is WindowMode.DROP
    assert job.links.backend is BackendChoice.RELAY
    assert job.plan().window is WindowMode.DROP


def test_queues_hold_60_ms_of_each_links_own_rate() -> None:
    (queue,) = LinkOptions(**FIXED).job().plan().queues
    assert queue.up_bytes == pytest.approx(5e6 / 8 * 0.06, abs=1)
    assert queue.down_bytes == pytest.approx(20e6 / 8 * 0.06, abs=1)


def test_a_trace_in_one_direction_and_a_rate_in_the_other(trace: Path) -> None:
    up = LinkOptions(trace_up=trace, rate_down_bps=3e6).job().source()
    down = LinkOptions(rate_up_bps=3e6, trace_down=trace).job().source()
    steady_bps = 10 * 1514 * 8 / 0.1
    for _ in range(5):
        one, other = up.step(), down.step()
        assert one.rate_down_bps[0] == other.rate_up_bps[0] == 3e6
        assert one.rate_up_bps[0] == other.rate_down_bps[0]
        assert one.rate_up_bps[0] == pytest.approx(steady_bps, rel=0.2)


def test_a_recorded_device_is_replayed_again_and_again(recording: Path) -> None:
    for path in (recording, recording / "links.schedule"):
        job = LinkOptions(timeline=path, device=2).job()
        source = job.source()
        assert [source.step().rate_up_bps[0] for _ in range(4)] == [3e6, 6e6, 3e6, 6e6]
        assert job.links.tick_s == 0.25
    closing = LinkOptions(timeline=recording, at_end=AtEnd.CLOSE).job().source()
    assert [bool(closing.step().is_open[0]) for _ in range(3)] == [True, True, False]


def test_all_recorded_devices_at_once(recording: Path) -> None:
    tick = LinkOptions(timeline=recording, devices=3).job().source().step()
    assert tick.rate_up_bps.tolist() == [1e6, 2e6, 3e6]


def test_radio_models_from_a_section_or_an_experiment(tmp_path: Path) -> None:
    section = (
        "mobility: {kind: static}\nrate: {kind: fixed, rate_up_bps: 1e+6, rate_down_bps: 2e+6}\n"
    )
    alone, whole = tmp_path / "radio.yaml", tmp_path / "experiment.yaml"
    alone.write_text(section)
    whole.write_text("name: anything\nradio:\n" + "".join(f"  {x}\n" for x in section.splitlines()))
    for path in (alone, whole):
        job = LinkOptions(radio=path, devices=2, window=WindowMode.DOWN).job()
        assert isinstance(job.links, RadioConfig)
        assert job.links.window is WindowMode.DOWN
        assert job.source().step().rate_down_bps.tolist() == [2e6, 2e6]


def test_outages_close_the_links() -> None:
    source = LinkOptions(**FIXED, outages=((0.1, 0.3),)).job().source()
    assert [bool(source.step().is_open[0]) for _ in range(4)] == [True, False, False, True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate_up_bps": 5e6}, ["downlink needs either --rate-down or --trace-down"]),
        ({**FIXED, "trace_up": Path("x")}, ["uplink needs either --rate-up or --trace-up"]),
        ({**FIXED, "rate_up_bps": -5.0}, ["rate_up_bps' is -5.0", "at least 64000"]),
        ({**FIXED, "rate_up_bps": 1e18}, ["rate_up_bps' is 1e+18", "at most 1e+11"]),
        ({**FIXED, "delay_down_s": -1.0}, ["delay_down_s' is -1.0", "at least 0"]),
        ({**FIXED, "loss_up": 1.5}, ["packet_loss_up' is 1.5", "at most 1"]),
        ({**FIXED, "jitter_up_s": 0.1}, ["a jitter of 0.1 s needs a delay"]),
        ({**FIXED, "tick_s": 0.0}, ["tick_s' is 0.0", "greater than 0"]),
        ({**FIXED, "devices": 0}, ["1 to 1000 devices, not 0"]),
        ({**FIXED, "devices": 10**6}, ["1 to 1000 devices, not 1000000"]),
        ({**FIXED, "outages": ((1.0, 3.0), (2.0, 4.0))}, ["[1, 3] and [2, 4] overlap"]),
        ({**FIXED, "outages": ((3.0, 1.0),)}, ["must end after its start"]),
        ({**FIXED, "outages": ((1.0, 1.01),)}, ["shorter than the tick"]),
        ({**FIXED, "device": 1}, ["leave --device out", "recorded schedule"]),
        ({**FIXED, "timeline": Path("x")}, ["leave --rate-up out", "x says that already"]),
        ({**FIXED, "radio": Path("x")}, ["leave --rate-up out", "x says that already"]),
        ({"timeline": Path("/nowhere")}, ["cannot read /nowhere: No such file"]),
        ({"radio": Path("/nowhere")}, ["/nowhere"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    options: dict[str, Any], words: list[str]
) -> None:
    said = complaint(**options)
    assert all(word in said for word in words), said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1\n5\n3\n", "line 3: 3 ms follows 5 ms"),
        ("1\nfive\n", "line 2: 'five' is no whole number"),
        ("", "is empty"),
        ("0\n0\n", "must last longer than 0 ms"),
    ],
)
def test_malformed_traces_are_refused(tmp_path: Path, content: str, words: str) -> None:
    bad = tmp_path / "bad.trace"
    bad.write_text(content)
    assert words in complaint(trace_up=bad, rate_down_bps=1e6)


def test_what_a_file_says_already_is_not_said_again(recording: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("t_s,rate_up_bps,rate_down_bps,delay_s\n0,1e6,1e6,0.02\n")
    assert "has a column for it" in complaint(timeline=table, delay_up_s=0.1)
    assert "this is a table" in complaint(timeline=table, device=1)
    assert LinkOptions(timeline=table, loss_up=0.1).job().source().step().loss_up[0] == 0.1
    assert "leave --tick out" in complaint(timeline=recording, tick_s=0.1)
    assert "recorded with 3 devices" in complaint(timeline=recording, device=3)
    assert "followed by one device, not by 2" in complaint(timeline=recording, device=1, devices=2)


def test_a_damaged_recording_is_refused(recording: Path) -> None:
    schedule = recording / "links.schedule"
    content = bytearray(schedule.read_bytes())
    content[-30] ^= 0xFF
    schedule.write_bytes(content)
    assert "damaged" in complaint(timeline=recording)


def test_a_misspelt_key_of_a_radio_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "radio.yaml"
    path.write_text("mobilty: {kind: static}\nrate: {kind: fixed}\n")
    assert "unknown key 'mobilty'" in complaint(radio=path)


def test_nothing_is_made_for_a_job_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse: Callable[..., str] = complaint
    refuse(**FIXED, loss_up=2.0)
    assert list(tmp_path.iterdir()) == []
