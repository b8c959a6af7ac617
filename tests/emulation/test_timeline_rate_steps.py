"""Tables of rates: bits are kept whatever the tick, and bad tables are named with their line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timelines import moving, terms

from fadelab_emulation.link_state import LinkTick
from fadelab_emulation.rate.base import MIN_RATE_BPS
from fadelab_emulation.timeline.rate_steps import CsvConfig, load_rate_steps

same_folder = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FULL = """\
t_s,rate_up_bps,rate_down_bps,delay_s,loss_up,loss_down,open
0,5e6,10e6,0.02,0,0.25,1
0.25,1e6,2e6,0.05,0.01,0,1
0.5,8e6,8e6,0.05,0,0,0
0.8,1e6,0,0.05,0,0,1
"""


def steps_of(path: Path, text: str, *, ticks: int, period_s: float | None = None) -> list[LinkTick]:
    path.write_text(text)
    source = CsvConfig(path=path, period_s=period_s).build(terms(2))
    return [source.step() for _ in range(ticks)]


def test_a_table_by_hand(tmp_path: Path) -> None:
    ticks = steps_of(tmp_path / "t.csv", FULL, ticks=12)
    up = [float(tick.rate_up_bps[1]) for tick in ticks]
    assert up[:5] == pytest.approx([5e6, 5e6, 3e6, 1e6, 1e6])
    assert up[8:] == pytest.approx([1e6] * 4)
    assert [bool(tick.is_open[0]) for tick in ticks] == [True] * 5 + [False] * 3 + [True] * 4
    assert ticks[9].rate_down_bps[0] == MIN_RATE_BPS
    assert [float(tick.delay_up_s[0]) for tick in ticks[:4]] == [0.02, 0.02, 0.02, 0.05]
    assert ticks[3].delay_down_s[1] == 0.05
    assert [float(tick.loss_down[0]) for tick in ticks[:4]] == [0.25, 0.25, 0.25, 0]
    assert ticks[3].loss_up[0] == 0.01
    assert [tick.index for tick in ticks] == list(range(12))


def test_a_table_repeats_with_its_period(tmp_path: Path) -> None:
    ticks = steps_of(tmp_path / "t.csv", FULL, ticks=40, period_s=1.0)
    for index in range(30):
        later, now = ticks[index + 10], ticks[index]
        assert later.rate_up_bps == pytest.approx(now.rate_up_bps)
        assert np.array_equal(later.is_open, now.is_open)
        assert np.array_equal(later.delay_up_s, now.delay_up_s)


@same_folder
@given(
    gaps=st.lists(st.integers(1, 400), min_size=0, max_size=8),
    data=st.data(),
    period=st.booleans(),
)
def test_no_bit_is_lost_between_the_ticks(
    tmp_path: Path, gaps: list[int], data: st.DataObject, period: bool
) -> None:
    starts = np.concatenate(([0], np.cumsum(gaps, dtype=np.int64))) / 1e3
    rates = [data.draw(st.sampled_from([0, 2e5, 1e6, 3.3e7])) for _ in starts]
    lines = [f"{t_s},{rate},{rate}" for t_s, rate in zip(starts, rates, strict=True)]
    text = "\n".join(["t_s,rate_up_bps,rate_down_bps", *lines])
    end_s = 5.0
    period_s = 2.5 if period and starts[-1] < 2.5 else None
    rounds = 2 if period_s else 1
    lengths = np.diff(np.append(starts, end_s / rounds).clip(max=end_s / rounds))
    ticks = steps_of(tmp_path / "t.csv", text, ticks=50, period_s=period_s)
    bits = sum(float(tick.rate_up_bps[0]) * bool(tick.is_open[0]) * 0.1 for tick in ticks)
    floor_bits = 50 * 0.1 * MIN_RATE_BPS
    assert bits == pytest.approx(rounds * float(lengths @ np.array(rates)), abs=floor_bits)


def test_losses_and_shares_of_other_classes_stay(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(FULL)
    classes = tuple(moving().classes)
    tick = CsvConfig(path=tmp_path / "t.csv").build(terms(classes=classes)).step()
    default, urgent = tick.down
    assert default.rate_bps == pytest.approx([7e6])
    assert urgent.rate_bps == pytest.approx([3e6])
    assert (default.loss.mean[0], urgent.loss.mean[0]) == (0.25, 0)


def test_without_the_column_the_experiments_loss_and_delay_hold(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("rate_down_bps, t_s, rate_up_bps\n2e6,0,1e6\n")
    asked = terms(packet_loss_up=0.125, delay_up_s=0.25)
    tick = CsvConfig(path=tmp_path / "t.csv").build(asked).step()
    assert (tick.loss_up[0], tick.delay_up_s[0], tick.delay_down_s[0]) == (0.125, 0.25, 0)
    assert (tick.rate_up_bps[0], tick.rate_down_bps[0]) == (1e6, 2e6)


HEAD = "t_s,rate_up_bps,rate_down_bps"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "t.csv is empty"),
        (HEAD + "\n", "has column names and no step"),
        ("t_s,rate_up_bps\n0,1\n", "line 1: the column rate_down_bps is missing"),
        (HEAD + ",speed\n0,1,1,1\n", "line 1: 'speed' is no column; there are t_s,"),
        (HEAD + ",t_s\n0,1,1,1\n", "line 1: the column t_s stands there twice"),
        (HEAD + "\n0,1\n", "line 2: 2 values for 3 columns"),
        (HEAD + "\n0,1,1\n1,fast,1\n", "line 3: rate_up_bps is 'fast', not a number"),
        (HEAD + "\n0,1,1\n1,-1,1\n", "line 3: rate_up_bps is -1, it must be between 0 and 1e"),
        (HEAD + "\n0,1,1\n1,1e13,1\n", "line 3: rate_up_bps is 1e13, it must be between 0"),
        (HEAD + "\n0,nan,1\n", "line 2: rate_up_bps is nan, it must be between 0"),
        (HEAD + ",loss_up\n0,1,1,1.5\n", "line 2: loss_up is 1.5, it must be between 0 and 1"),
        (HEAD + ",open\n0,1,1,0.5\n", "line 2: open is 0.5, it must be 0 or 1"),
        (HEAD + "\n1,1,1\n", "line 2: the first step must begin at 0 s"),
        (HEAD + "\n0,1,1\n\n2,1,1\n2,1,1\n", "line 5: 2 s does not come after the step before"),
    ],
)
def test_a_malformed_table_is_named_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_rate_steps(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


@same_folder
@given(rubbish=st.binary(min_size=1, max_size=60))
def test_any_bytes_are_a_table_or_a_sentence(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(HEAD.encode() + b"\n0,1,1\n" + rubbish)
    try:
        steps = load_rate_steps(tmp_path / "t.csv")
    except ValueError as error:
        sentence = str(error)
    else:
        assert steps.t_s[0] == 0
        return
    assert str(tmp_path / "t.csv") in sentence


def test_what_does_not_fit_the_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(FULL)
    with pytest.raises(ValueError, match=r"cannot be repeated every 0\.8 s: its last step begins"):
        CsvConfig(path=tmp_path / "t.csv", period_s=0.8).build(terms())
    with pytest.raises(ValueError, match=r"a delay of 0\.02 s, but a jitter of 0\.01 s needs"):
        CsvConfig(path=tmp_path / "t.csv").build(terms(jitter_up_s=0.01, delay_up_s=1.0))
    with pytest.raises(ValueError, match="a table of rates does not depend on powers"):
        CsvConfig(path=tmp_path / "t.csv").build(terms()).set_uplink_power(0, 0.1)
