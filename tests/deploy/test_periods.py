"""Local periods in the summary: every number worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from period_record import applied, ended, stage, two_tasks, write_periods
from run_record import RATE_DOWN_BPS, RATE_UP_BPS, RunWriter, write_whole_run

from fadelab.results.compute import compute_summary
from fadelab.results.goodput import ProgrammedRate
from fadelab.results.period_schema import BoundPoint, Periods
from fadelab.results.periods import bound_history
from fadelab.results.record import RunRecord
from fadelab.results.stages import Stage, stages_of

POWER_UP_W, POWER_DOWN_W = 0.2, 1.0
"""Those of the example that the record is made from."""


@pytest.fixture
def run(tmp_path: Path) -> RunWriter:
    writer = RunWriter(tmp_path, **two_tasks())
    write_periods(writer)
    return writer


def periods(run: RunWriter) -> Periods:
    found = compute_summary(run.folder).periods
    assert found is not None
    return found


def test_a_run_without_periods_has_no_such_section(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    assert compute_summary(tmp_path).periods is None
    assert stages_of(RunRecord.load(tmp_path)) == []
    assert bound_history(RunRecord.load(tmp_path)) == {}


def test_means_are_by_task_and_by_task_and_device(run: RunWriter) -> None:
    digits, letters = (periods(run).tasks[name] for name in ("digits", "letters"))
    own = digits.periods
    assert (own.ended, own.mean_steps, own.mean_batch, own.mean_cpu_hz) == (2, 6.0, 24.0, 1e6)
    means = own.mean_idle_s, own.mean_downlink_s, own.mean_compute_s, own.mean_uplink_s
    assert means == pytest.approx((0.25, 0.05, 0.75, 0.2))
    assert (own.downlink_bits, own.uplink_bits) == (200_000, 200_000)
    assert [one.device for one in digits.devices] == [0]
    assert [one.device for one in letters.devices] == [1]
    assert letters.devices[0].periods == letters.periods
    assert letters.periods.mean_cpu_hz == 3e6


def test_energy_is_modelled_by_formulas_and_metered_by_times(run: RunWriter) -> None:
    found = periods(run).tasks["digits"].periods
    # Two times 100 kbit; alone on the link they take a tenth and a twentieth of a second.
    assert found.modelled.model_dump() == pytest.approx(
        {
            "compute": 6.0,
            "uplink": 2 * POWER_UP_W * 1e5 / RATE_UP_BPS,
            "downlink": 2 * POWER_DOWN_W * 1e5 / RATE_DOWN_BPS,
        }
    )
    # Training kept its time; uploads cost what the agent says; fetching took 50 ms each, in contact.
    assert found.metered.model_dump() == pytest.approx(
        {"compute": 6.0, "uplink": 0.08, "downlink": 2 * POWER_DOWN_W * 0.05}
    )
    both = periods(run)
    assert both.modelled.compute == 8.0
    assert both.metered.uplink == pytest.approx(0.12)


def test_receiving_costs_nothing_while_the_link_is_closed(run: RunWriter) -> None:
    stage(run, 0, "letters", 0.8, "downlink")
    ended(run, 0, "letters", 2.95, downlink_s=1.0)
    # From 0.8 to 1.8 s, of which the link is closed from 1.0 to 1.5 s.
    device_0 = periods(run).tasks["letters"].devices[0].periods
    assert device_0.metered.downlink == pytest.approx(POWER_DOWN_W * 0.5)


def test_training_that_took_longer_costs_more_and_counts_against_the_run(run: RunWriter) -> None:
    ended(run, 1, "letters", 3.0, compute_s=0.5, compute_real_s=0.75, compute_j=2.0)
    summary = compute_summary(run.folder)
    assert summary.periods is not None
    letters = summary.periods.tasks["letters"].periods
    assert (letters.overruns, letters.late_s) == (1, pytest.approx(0.25))
    assert letters.modelled.compute == 4.0
    assert letters.metered.compute == pytest.approx(2.0 + 3.0)
    assert (summary.periods.overruns, summary.periods.trainings) == (1, 4)
    assert [reason for reason in summary.invalid_reasons if "trainings" in reason] == [
        (
            "1 of 4 trainings took longer than their emulated "
            "time, by 0.25 s of 2.5 s in all; at most 2 % is allowed."
        )
    ]


def test_a_period_that_was_given_up_before_training_has_nothing_to_compare(run: RunWriter) -> None:
    ended(run, 1, "letters", 3.0, compute_s=0, compute_real_s=0, compute_j=0, steps=0)
    found = periods(run)
    letters = found.tasks["letters"].periods
    assert (found.trainings, letters.ended, letters.mean_steps) == (3, 2, 4.0)


def test_staleness_is_held_against_the_cap(run: RunWriter) -> None:
    digits = periods(run).tasks["digits"]
    assert (digits.scheduled, digits.staleness_cap, digits.largest_staleness) == (2, 2, 2)
    assert digits.mean_planned_idle_s == 0.25
    assert digits.over_cap == 0
    assert compute_summary(run.folder).valid
    applied(run, 1, "digits", 2.95, 3)
    summary = compute_summary(run.folder)
    assert summary.invalid_reasons == [
        (
            "1 of the applied updates of task digits were staler than allowed: up to 3 versions, 2 "
            "are allowed."
        )
    ]


@pytest.mark.parametrize("schedule", ["at_once", "rounds"])
def test_other_schedules_have_no_cap(tmp_path: Path, schedule: str) -> None:
    method = {"name": "dma_fl", "schedule": schedule, "resources": "fixed"}
    run = RunWriter(tmp_path, **two_tasks() | {"method": method})
    write_periods(run)
    applied(run, 1, "digits", 2.95, 9)
    digits = periods(run).tasks["digits"]
    assert (digits.staleness_cap, digits.largest_staleness, digits.over_cap) == (None, 9, 0)


def test_other_methods_have_neither_cap_nor_bound(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    ended(run, 0, "digits", 1.0)
    digits = periods(run).tasks["digits"]
    assert (digits.scheduled, digits.mean_planned_idle_s) == (0, None)
    assert (digits.staleness_cap, digits.largest_staleness, digits.bound) == (None, 1, None)


def test_the_bound_is_the_last_one_and_its_history_is_kept(run: RunWriter) -> None:
    last = BoundPoint(t_s=2.9, version=2, a=1.0, b=2.0, c=3.0, d=4.0, e=None, f=6.0, total=None)
    found = periods(run)
    assert found.tasks["digits"].bound == last
    assert found.tasks["letters"].bound is None
    history = bound_history(RunRecord.load(run.folder))["digits"]
    assert [(point.version, point.total) for point in history] == [(1, 21.0), (2, None)]


def test_stages_last_until_the_next_one_of_their_task(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    for t_s, name in ((-0.5, "idle"), (0.5, "downlink"), (0.6, "compute"), (1.0, "uplink")):
        stage(run, 1, "digits", t_s, name)
    stage(run, 1, "letters", 0.7, "uplink")
    stage(run, 1, "digits", 1.5, "none")
    stage(run, 1, "digits", 2.5, "idle")
    found = stages_of(RunRecord.load(run.folder))
    assert found == [
        Stage(1, "digits", "idle", 0.0, 0.5),
        Stage(1, "digits", "downlink", 0.5, pytest.approx(0.6)),
        Stage(1, "digits", "compute", pytest.approx(0.6), 1.0),
        Stage(1, "digits", "uplink", 1.0, 1.5),
        Stage(1, "digits", "idle", 2.5, 3.0),
        Stage(1, "letters", "uplink", pytest.approx(0.7), 3.0),
    ]


def test_airtime_leaves_out_what_the_link_was_closed() -> None:
    rate = ProgrammedRate(np.array([1e6, 0.0, 2e6, 2e6]), 0.5)
    assert rate.airtime_s(2.5e5, 0.0) == pytest.approx(0.25)
    # Half a second at 1 Mbit/s, then as much again at 2.
    assert rate.airtime_s(1.5e6, 0.0) == pytest.approx(1.0)
    assert rate.airtime_s(1e6, 0.6) == pytest.approx(0.5)
    # Beyond the end, at the mean of 2.5 Mbit in 1.5 s.
    assert rate.airtime_s(3e6, 0.0) == pytest.approx(1.5 + 0.5e6 * 1.5 / 2.5e6)
    assert ProgrammedRate(np.zeros(2), 0.5).airtime_s(1e6, 0.0) == 0.0


def test_each_task_has_its_own_counts_and_costs(run: RunWriter) -> None:
    run.write("agent-0", 0.5, "plan", task="digits")
    run.write("agent-0", 0.5, "plan", task="digits")
    run.write("agent-0", 0.5, "plan", task="digits")
    run.upload("upload_partial", 3.0, 1, task="letters", packets=2, payload_bytes=20_000)
    digits = compute_summary(run.folder).tasks["digits"]
    assert digits.updates is not None
    assert (digits.updates.started, digits.updates.complete, digits.updates.lost) == (3, 2, 1)
    assert digits.staleness.versions == [0, 2]
    assert [(one.direction, one.payload) for one in digits.packets] == [("up", 80_000)]
    # Version 1 was published after one period: 2 J, 40 mJ and 50 ms of receiving at 1 W.
    costs = [point.energy_j for point in digits.curve]
    assert costs[:2] == [0.0, pytest.approx(2.09)]


def test_costs_of_single_trainings_and_transfers_add_up_too(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    run.write("agent-0", 0.5, "trained", task="digits", compute_j=1.5)
    run.write("agent-0", 2.0, "upload_ended", task="digits", uplink_j=0.25)
    costs = [point.energy_j for point in compute_summary(tmp_path).tasks["digits"].curve]
    # The model that device 0 received had cost 0.4 J by second 0.4.
    assert costs == [0.0, pytest.approx(1.9), pytest.approx(2.15)]
