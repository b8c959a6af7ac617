"""Mahimahi traces: packets per second are kept on the way in and out, and bad files are named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timelines import moving, rate_ticks, record, recording, terms

from fadelab_emulation.link_state import FloatArray, LinkTick
from fadelab_emulation.packet_class import GilbertElliott
from fadelab_emulation.rate.base import MIN_RATE_BPS
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.timeline.link_track import LinkTrack
from fadelab_emulation.timeline.mahimahi import (
    OPPORTUNITY_BITS,
    MahimahiConfig,
    MahimahiTrace,
    TraceStart,
    load_mahimahi,
    trace_of,
    write_mahimahi,
)
from fadelab_emulation.world import RadioWorld

same_folder = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
traces = st.lists(st.integers(0, 900), min_size=1, max_size=60).map(sorted).filter(lambda t: t[-1])


def write_lines(path: Path, times_ms: list[int]) -> Path:
    path.write_text("".join(f"{ms}\n" for ms in times_ms))
    return path


def played(times_ms: list[int], until_ms: int) -> list[int]:
    """Every opportunity before a time, by Mahimahi's own rule."""
    found: list[int] = []
    base_ms = 0
    while base_ms < until_ms:
        found += [base_ms + ms for ms in times_ms if base_ms + ms < until_ms]
        base_ms += times_ms[-1]
    return found


def packets(ticks: list[LinkTick], tick_s: float) -> FloatArray:
    """Full packets that each tick lets through on the first device's uplink."""
    rates = np.array([tick.rate_up_bps[0] * tick.is_open[0] for tick in ticks])
    return rates * tick_s / OPPORTUNITY_BITS


@same_folder
@given(times_ms=traces, tick_ms=st.sampled_from([1, 10, 33, 100]))
def test_every_tick_has_the_rate_of_its_opportunities(
    tmp_path: Path, times_ms: list[int], tick_ms: int
) -> None:
    path = write_lines(tmp_path / "trace", times_ms)
    tick_s = tick_ms / 1e3
    source = MahimahiConfig(up=path, down=path).build(terms(1, tick_s))
    ticks = [source.step() for _ in range(60)]
    counted, _ = np.histogram(
        played(times_ms, 60 * tick_ms), bins=np.arange(61) * tick_ms - np.eye(61)[60] * 0.5
    )
    assert packets(ticks, tick_s) == pytest.approx(counted, abs=1e-9)
    assert [bool(tick.is_open[0]) for tick in ticks] == (counted > 0).tolist()


def test_a_tick_that_is_no_whole_number_of_milliseconds_loses_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "trace", list(range(1, 1001)))
    source = MahimahiConfig(up=path, down=path).build(terms(1, 1 / 60))
    ticks = [source.step() for _ in range(600)]
    assert packets(ticks, 1 / 60).sum() == pytest.approx(10_000 - 1)


def test_a_direction_that_rests_alone_is_slow_and_both_together_are_closed(tmp_path: Path) -> None:
    up = write_lines(tmp_path / "up", [50, 400])
    down = write_lines(tmp_path / "down", [150, 160, 400])
    source = MahimahiConfig(up=up, down=down).build(terms(1, 0.1))
    ticks = [source.step() for _ in range(4)]
    assert [bool(tick.is_open[0]) for tick in ticks] == [True, True, False, False]
    one_bps = OPPORTUNITY_BITS / 0.1
    assert [tick.rate_up_bps[0] for tick in ticks[:2]] == pytest.approx([one_bps, MIN_RATE_BPS])
    assert [tick.rate_down_bps[0] for tick in ticks[:2]] == pytest.approx(
        [MIN_RATE_BPS, 2 * one_bps]
    )
    assert [float(tick.predicted_contact_s[0]) for tick in ticks] == [3600, 3600, 0, 0]


def test_devices_share_a_trace_or_begin_it_apart(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "trace", [ms for ms in range(1, 5001) if ms // 100 % 7])
    together = MahimahiConfig(up=path, down=path).build(terms(5))
    assert np.ptp(together.step().rate_up_bps) == 0
    config = MahimahiConfig(up=path, down=path, start=TraceStart.STAGGERED)

    def rates(devices: int, seed: int) -> FloatArray:
        source = config.build(terms(devices, seed=seed))
        return np.array([source.step().rate_up_bps for _ in range(80)])

    apart = rates(5, 7)
    assert np.array_equal(apart, rates(5, 7))
    assert np.array_equal(apart[:, :2], rates(2, 7))
    assert not np.array_equal(apart, rates(5, 8))
    assert len({apart[:, device].tobytes() for device in range(5)}) == 5


def test_classes_losses_and_delays_are_the_experiments(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "trace", list(range(1, 101)))
    burst = GilbertElliott(to_bad=0.01, to_good=0.1)
    asked = terms(
        2,
        classes=tuple(moving().classes),
        packet_loss_up=burst,
        delay_down_s=0.04,
        jitter_down_s=0.005,
    )
    tick = MahimahiConfig(up=path, down=path).build(asked).step()
    assert [float(lane.rate_bps[0]) for lane in tick.up] == pytest.approx(
        [0.8 * 99 * 10 * OPPORTUNITY_BITS, 0.2 * 99 * 10 * OPPORTUNITY_BITS]
    )
    assert tick.loss_up == pytest.approx([1 / 11, 1 / 11])
    assert (tick.delay_down_s[1], tick.jitter_down_s[1], tick.delay_up_s[1]) == (0.04, 0.005, 0)
    record(tmp_path / "links", [tick], lanes=("default", "urgent"))


def per_second(times_ms: list[int], seconds: int) -> FloatArray:
    counts = np.bincount(np.array(times_ms) // 1000, minlength=seconds)
    return counts[:seconds].astype(np.float64)


@same_folder
@given(
    rates=st.lists(st.sampled_from([0.0, 64e3, 1e6, 12e6, 777e3]), min_size=20, max_size=50),
    data=st.data(),
)
def test_a_recording_exported_and_imported_keeps_its_packets_per_second(
    tmp_path: Path, rates: list[float], data: st.DataObject
) -> None:
    rates[data.draw(st.integers(0, 19))] = 5e6
    reader = recording(tmp_path / "links", rate_ticks(rates))
    (tmp_path / "trace").unlink(missing_ok=True)
    write_mahimahi(trace_of(LinkTrack.of_reader(reader, 0, uplink=True)), tmp_path / "trace")
    times_ms = load_mahimahi(tmp_path / "trace").opportunity_ms.tolist()
    seconds = len(rates) // 10
    bits = np.array(rates)[: seconds * 10].reshape(seconds, 10).sum(axis=1) * 0.1
    assert np.abs(per_second(times_ms, seconds) - bits / OPPORTUNITY_BITS).max() <= 1 + 1e-6
    source = MahimahiConfig(up=tmp_path / "trace", down=tmp_path / "trace").build(terms())
    again = packets([source.step() for _ in range(seconds * 10)], 0.1)
    assert (
        np.abs(again.reshape(seconds, 10).sum(axis=1) - bits / OPPORTUNITY_BITS).max() <= 1 + 1e-6
    )


@same_folder
@given(times_ms=traces)
def test_an_imported_trace_recorded_and_exported_keeps_its_packets_per_second(
    tmp_path: Path, times_ms: list[int]
) -> None:
    path = write_lines(tmp_path / "trace", times_ms)
    source = MahimahiConfig(up=path, down=path).build(terms())
    reader = recording(tmp_path / "links", [source.step() for _ in range(50)])
    back = trace_of(LinkTrack.of_reader(reader, 0, uplink=True))
    original = played(times_ms, 5000)
    assert len(back.opportunity_ms) == len(original) + 1
    found = per_second(back.opportunity_ms.tolist(), 5)
    assert np.abs(found - per_second(original, 5)).max() <= 1
    assert back.period_ms == 5000


def test_a_moving_devices_links_go_out_as_traces(tmp_path: Path) -> None:
    config = moving(classes=[])
    world = RadioWorld(config, 3, 7)
    record(tmp_path / "links", [world.step() for _ in range(600)])
    reader = ScheduleReader(tmp_path / "links")
    for device in range(3):
        for uplink in (True, False):
            track = LinkTrack.of_reader(reader, device, uplink=uplink)
            trace = trace_of(track)
            whole = track.rate_bps.sum() * 0.1 / OPPORTUNITY_BITS
            assert whole > 10
            assert len(trace.opportunity_ms) == int(whole) + 1
            assert trace.period_ms == 60_000
            for second in (0, 17, 58):
                between = trace.before(np.array([second, second + 1]) * 1000.0)
                programmed = track.rate_bps[second * 10 : second * 10 + 10].sum() * 0.1
                assert abs(np.diff(between)[0] - programmed / OPPORTUNITY_BITS) <= 1


def test_a_link_that_carries_nothing_cannot_go_out() -> None:
    for rates in ([0.0] * 5, [64e3], []):
        track = LinkTrack.of_ticks(rate_ticks(rates), 0.1, 0, uplink=True)
        with pytest.raises(ValueError, match="carries no whole packet"):
            trace_of(track)
    zeros = np.zeros(100)
    with pytest.raises(ValueError, match="a trace may have 1000000000 ms and 10000000 packets"):
        trace_of(LinkTrack(10.0, zeros + 1e12, zeros, zeros))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the trace .*trace is empty"),
        (b"\n\n", "the trace .*trace is empty"),
        (b"1\nabc\n3\n", "trace, line 2: 'abc' is no whole number of milliseconds"),
        (b"1\n2.5\n", "line 2: '2.5' is no whole number"),
        (b"1\n2\n-3\n", "line 3: '-3' is no whole number"),
        (b"1\n\n3\n", "line 2: '' is no whole number"),
        (b"1\n2 3\n", "line 2: '2 3' is no whole number"),
        (b"1\n2\x00\n", "line 2: .* is no whole number"),
        (b"\xff\xfe1\n", "line 1: .* is no whole number"),
        (b"1\n5\n4\n", "line 3: 4 ms follows 5 ms, but a trace's times must not decrease"),
        (b"0\n0\n", "line 2: a trace must last longer than 0 ms"),
        (b"1\n99999999999999999999\n", "line 2: '99999999999999999999' is no whole number"),
        (b"1\n1000000001\n", "line 2: a trace may last 1000000000 ms, not 1000000001 ms"),
        (b"1" * 1000, "line 1: '11111111111111111111' is no whole number"),
    ],
)
def test_a_malformed_trace_is_named_with_its_line(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "trace").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_mahimahi(tmp_path / "trace")
    assert "\n" not in str(caught.value)


def test_a_trace_that_is_not_there_or_too_large_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the trace .*nothing cannot be read: No such file"):
        load_mahimahi(tmp_path / "nothing")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"the trace .*huge is larger than 64 MiB"):
        load_mahimahi(tmp_path / "huge")


@given(rubbish=st.binary(min_size=1, max_size=50))
@same_folder
def test_any_bytes_are_a_trace_or_a_sentence(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "trace").write_bytes(rubbish)
    digits = all(line.isdigit() for line in rubbish.replace(b"\r\n", b"\n").splitlines())
    try:
        trace = load_mahimahi(tmp_path / "trace")
    except ValueError as error:
        sentence = str(error)
    else:
        assert digits
        assert trace.period_ms > 0
        return
    assert str(tmp_path / "trace") in sentence


def test_windows_line_ends_and_a_missing_last_one_are_forgiven(tmp_path: Path) -> None:
    (tmp_path / "trace").write_bytes(b"1\r\n1\r\n7")
    assert load_mahimahi(tmp_path / "trace").opportunity_ms.tolist() == [1, 1, 7]


def test_no_trace_is_overwritten_and_powers_change_none(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "trace", [5])
    with pytest.raises(FileExistsError):
        write_mahimahi(MahimahiTrace(np.array([5])), path)
    with pytest.raises(ValueError, match="a Mahimahi trace does not depend on powers"):
        MahimahiConfig(up=path, down=path).build(terms()).set_uplink_power(0, 0.1)
