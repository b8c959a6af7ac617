"""Programmed rate and achieved throughput over time."""

from pathlib import Path

import numpy as np
import pytest
from run_record import DEVICES, RATE_UP_BPS, TICK_S, RunWriter, write_whole_run

from fadelab.results.record import RunRecord
from fadelab.results.throughput import Throughput, throughput

# Bytes that device 0 and device 1 have sent when each tick begins.
SENT = [[1_000, 0], [51_000, 100], [101_000, 100], [101_000, 100], [151_000, 200], [201_000, 700]]


def found(folder: Path, at_most: int, *, late_s: float = 0.0) -> Throughput:
    run = RunWriter(folder)
    write_whole_run(run)
    run.achieved({"sent_bytes": [*SENT, [251_000, 700], [251_000, 700]]}, late_s=late_s)
    result = throughput(RunRecord.load(folder), DEVICES, at_most)
    assert result is not None
    return result


def test_each_tick_is_a_step_where_there_is_room(tmp_path: Path) -> None:
    result = found(tmp_path, 100)
    # The run ends after tick 5, though the timeline and the readings go on.
    assert result.edges_s.tolist() == [TICK_S * tick for tick in range(7)]
    expected = np.array([50_000, 50_000, 0, 50_000, 50_000, 50_000]) * 8 / TICK_S
    assert result.up.achieved_bps[:, 0] == pytest.approx(expected)
    assert result.up.achieved_bps[0, 1] == pytest.approx(100 * 8 / TICK_S)
    rate = RATE_UP_BPS
    np.testing.assert_array_equal(
        result.up.programmed_bps[:, 0], [rate, rate, np.nan, rate, rate, rate]
    )
    assert result.down.achieved_bps.max() == 0


def test_steps_of_several_ticks_hold_means_in_which_closed_links_count_zero(
    tmp_path: Path,
) -> None:
    result = found(tmp_path, 3)
    assert result.edges_s.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert result.up.programmed_bps[:, 0].tolist() == [RATE_UP_BPS, RATE_UP_BPS / 2, RATE_UP_BPS]
    assert result.up.achieved_bps[:, 0] == pytest.approx([8e5, 4e5, 8e5])


def test_a_reading_a_moment_after_its_tick_does_not_lose_the_first_step(tmp_path: Path) -> None:
    result = found(tmp_path, 100, late_s=0.001)
    assert result.up.achieved_bps[0, 0] == pytest.approx(8e5)


def test_before_the_first_and_after_the_last_reading_nothing_is_known(tmp_path: Path) -> None:
    result = found(tmp_path, 100, late_s=1.3)
    assert np.isnan(result.up.achieved_bps[:3, 0]).all()
    assert not np.isnan(result.up.achieved_bps[3:, 0]).any()


def test_without_readings_there_is_none(tmp_path: Path) -> None:
    write_whole_run(RunWriter(tmp_path))
    assert throughput(RunRecord.load(tmp_path), DEVICES, 100) is None
