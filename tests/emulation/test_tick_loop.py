"""The loop carries the timeline out: in order, on time, with guards and powers seen to."""

from pathlib import Path

import numpy as np
import pytest
from loop_bench import RADIO, STEP_S, TICK_S, Bench, bench
from timelines import assert_same_in_float32, columns

from fadelab_emulation.achieved import read_achieved
from fadelab_emulation.backends.base import Resume
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.tick_loop import Lateness
from fadelab_emulation.timeline.replay import AtEnd, Replay
from fadelab_emulation.timeline.time_scale import Timescale
from fadelab_emulation.world import RadioWorld

START_S = 1000.5


def test_ticks_are_carried_out_in_order_and_on_time(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.loop.begin(START_S)
        made.run(30)
        staging, *applied = made.backend.applied
        assert [tick.index for _, tick in applied] == list(range(30))
        for at_s, tick in applied:
            due_s = START_S + TICK_S * tick.index
            assert due_s <= at_s + 1e-9
            assert at_s < due_s + 1.5 * STEP_S
        assert made.backend.samples == 30
        late = np.array(made.loop.lateness.seconds)
        assert len(late) == 30
        assert late.min() > -1e-9
        assert late.max() < 1.5 * STEP_S
        assert staging[0] < START_S


def test_until_the_start_all_links_are_open_fast_and_without_loss(tmp_path: Path) -> None:
    with bench(tmp_path, packet_loss_up=0.5, packet_loss_down=0.5) as made:
        made.loop.begin(START_S)
        made.run(1)
        (_, staging), (_, first) = made.backend.applied
        assert staging.is_open.all()
        assert min(staging.rate_up_bps.min(), staging.rate_down_bps.min()) >= 20e6
        assert staging.loss_up.max() == staging.loss_down.max() == 0
        assert first.loss_up.min() == 0.5


def test_the_world_that_is_carried_out_is_that_of_the_seed(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.loop.begin(START_S)
        made.run(20)
        world = RadioWorld(made.config, made.devices, 1)
        for tick in made.ticks:
            expected = world.step()
            assert tick.index == expected.index
            assert np.array_equal(tick.rate_up_bps, expected.rate_up_bps)
            assert np.array_equal(tick.is_open, expected.is_open)


def test_a_late_start_is_made_up_for_and_measured(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.loop.begin(made.clock.time_s - 5 * TICK_S)
        made.run(10)
        assert [tick.index for tick in made.ticks] == list(range(10))
        assert made.loop.lateness.seconds[0] > 4.9 * TICK_S
        assert made.loop.lateness.seconds[9] < 1.5 * STEP_S


def test_only_the_first_beginning_counts(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.loop.begin(START_S)
        made.loop.begin(START_S + 50)
        made.run(2)
        at_s, _ = made.backend.applied[1]
        assert at_s == pytest.approx(START_S, abs=1.5 * STEP_S)


def test_a_loop_may_begin_and_end_while_it_waits(tmp_path: Path) -> None:
    with bench(tmp_path) as made:

        def begin_after_a_while() -> None:
            if made.clock.time_s > 1000.2:
                made.loop.begin(START_S)

        made.backend.before_waiting = begin_after_a_while
        made.run(3)
        assert len(made.ticks) == 3


def test_stopping_before_the_beginning_leaves_an_account_and_no_tick(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.loop.stop()
        made.run(1)
        assert made.ticks == []
        assert made.loop.lateness.percentile_ms(99) == 0.0
        assert len(made.counters) == 1
        assert len(made.events("wire")) == 1
        assert ScheduleReader(tmp_path / "links.schedule").ticks == 0


def test_the_schedule_holds_what_was_carried_out(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.loop.begin(START_S)
        made.run(12)
        schedule = ScheduleReader(tmp_path / "links.schedule")
        assert schedule.ticks == 12
        rates = np.array([tick.rate_up_bps for tick in made.ticks], dtype=np.float32)
        assert np.array_equal(schedule.column("rate_up_bps"), rates)
        assert np.array_equal(schedule.is_open, np.array([t.is_open for t in made.ticks]))


def test_contacts_are_logged_once_for_each_change(tmp_path: Path) -> None:
    with bench(tmp_path, devices=8) as made:
        made.loop.begin(START_S)
        made.run(250)
        is_open = np.array([tick.is_open for tick in made.ticks]).astype(int)
        before = np.concatenate([np.zeros((1, 8), dtype=int), is_open[:-1]])
        expected = [
            ("contact_opened" if is_open[tick, device] else "contact_closed", device, tick)
            for tick, device in np.argwhere(is_open != before).tolist()
        ]
        logged = made.events("contact_opened", "contact_closed")
        assert [(e["event"], e["device"], e["tick"]) for e in logged] == expected
        assert {name for name, _, _ in expected} == {"contact_opened", "contact_closed"}
        for event in logged:
            assert event["planned_t_s"] == pytest.approx(TICK_S * event["tick"])
            assert event["applied_mono_s"] == pytest.approx(
                START_S + event["planned_t_s"], abs=1.5 * STEP_S
            )


def test_guards_are_checked_when_they_are_due_between_ticks(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        due_s = START_S + 3.5 * TICK_S
        made.backend.guard_due_s = due_s
        made.loop.begin(START_S)
        made.run(6)
        (checked_s,) = made.backend.guards_checked_s
        assert due_s <= checked_s < due_s + 1.5 * STEP_S


def test_guards_are_checked_before_the_beginning_too(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.backend.guard_due_s = made.clock.time_s
        made.loop.begin(START_S)
        made.run(1)
        assert made.backend.guards_checked_s == [1000.0]


def test_resumptions_are_logged_as_the_backend_saw_them(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.backend.resumes = [Resume(device=3, opened_s=1000.25, resume_s=0.0075)]
        made.loop.begin(START_S)
        made.run(2)
        (event,) = made.events("resumed")
        assert (event["device"], event["opened_mono_s"]) == (3, 1000.25)
        assert event["resume_s"] == 0.0075


def test_what_the_links_carried_is_counted_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.loop.begin(START_S)
        made.run(31)
        wire = made.events("wire")
        # At 0, 1, 2 and 3 s (within a tick), then at the end.
        assert len(wire) == len(made.counters) == 5
        assert wire[-1]["up_bytes"] == made.devices * len(made.backend.applied)
        assert wire[0]["counted_mono_s"] == pytest.approx(START_S, abs=1.5 * STEP_S)


def test_what_crossed_the_links_before_the_loop_is_not_the_runs(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.backend.apply(RadioWorld(made.config, made.devices, 1).step())
        made.loop.begin(START_S)
        made.run(3)
        assert len(made.backend.applied) == 5
        assert made.events("wire")[-1]["up_bytes"] == 4 * made.devices
        assert made.counters[-1].up.wire_bytes.tolist() == [4] * made.devices


def snr_db(made: Bench, device: int) -> list[float]:
    return [float(tick.snr_up_db[device]) for tick in made.ticks]


def test_a_power_request_takes_effect_and_leaves_the_others_alone(tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    (tmp_path / "asked").mkdir()
    with bench(tmp_path / "calm") as calm:
        calm.loop.begin(START_S)
        calm.run(10)
    with bench(tmp_path / "asked") as asked:
        asked.loop.begin(START_S)

        wishes: list[float] = []

        def ask() -> None:
            if asked.clock.time_s > START_S + 4.5 * TICK_S and not wishes:
                wishes.append(0.02)
                asked.loop.request_power(2, 0.02)

        asked.backend.before_waiting = ask
        asked.run(10)
    fall_db = np.subtract(snr_db(calm, 2), snr_db(asked, 2))
    # Tick 5 was computed before the request came; from tick 6 on a tenth of the power is heard.
    assert fall_db[:6] == pytest.approx(np.zeros(6), abs=1e-9)
    assert fall_db[6:] == pytest.approx(np.full(4, 10.0), abs=1e-6)
    assert snr_db(calm, 1) == snr_db(asked, 1)
    # It is told when tick 6, the seventh, is in force.
    assert asked.powers == [(7, {2: 0.02})]
    assert calm.powers == []
    logged = asked.events("power_in_force")
    assert [(e["tick"], e["device"], e["power_w"]) for e in logged] == [(6, 2, 0.02)]


@pytest.mark.parametrize("factor", [0.5, 10.0])
def test_scaled_time_brings_ticks_sooner_or_later(tmp_path: Path, factor: float) -> None:
    with bench(tmp_path, timescale=Timescale(factor)) as made:
        made.loop.begin(START_S)
        made.run(30)
        for at_s, tick in made.backend.applied[1:]:
            due_s = START_S + TICK_S * tick.index / factor
            assert due_s <= at_s + 1e-9
            assert at_s < due_s + 1.5 * STEP_S
        assert np.ptp(made.loop.lateness.seconds) < 1.5 * STEP_S


def test_links_are_scaled_and_everybody_else_sees_emulated_values(tmp_path: Path) -> None:
    scale = Timescale(4.0)
    delays = {"delay_up_s": 0.2, "jitter_up_s": 0.01}
    with bench(tmp_path, timescale=scale, **delays) as made:
        made.loop.begin(START_S)
        made.run(10)
        world = RadioWorld(RadioConfig.model_validate(RADIO | delays), made.devices, 1)
        schedule = ScheduleReader(tmp_path / "links.schedule")
        staging, *applied = (tick for _, tick in made.backend.applied)
        for index, tick in enumerate(made.ticks):
            expected = world.step()
            assert_same_in_float32(tick, expected)
            assert_same_in_float32(schedule.tick(index), expected)
            assert_same_in_float32(applied[index], scale.scaled(expected))
        assert applied[3].delay_up_s[0] == pytest.approx(0.05)
        assert staging.delay_up_s[0] == pytest.approx(0.05)


def test_a_replay_is_carried_out_and_recorded_like_the_original(tmp_path: Path) -> None:
    for name in ("original", "again"):
        (tmp_path / name).mkdir()
    with bench(tmp_path / "original") as original:
        original.loop.begin(START_S)
        original.run(25)
    recorded = tmp_path / "original" / "links.schedule"
    source = Replay(ScheduleReader(recorded), original.devices, AtEnd.CLOSE)
    with bench(tmp_path / "again", source=source) as again:
        again.loop.request_power(2, 0.05)
        again.loop.begin(START_S)
        again.run(25)
    assert (tmp_path / "again" / "links.schedule").read_bytes() == recorded.read_bytes()
    for (_, one), (_, other) in zip(original.backend.applied, again.backend.applied, strict=True):
        for name, values in columns(one).items():
            assert columns(other)[name] == pytest.approx(values, rel=1e-6)
    (refused,) = again.events("power_refused")
    assert (refused["device"], refused["power_w"]) == (2, 0.05)
    assert "a replayed timeline does not depend on powers" in refused["reason"]


def test_percentiles_of_lateness_are_in_milliseconds() -> None:
    lateness = Lateness([0.001 * number for number in range(101)])
    assert lateness.percentile_ms(50) == pytest.approx(50)
    assert lateness.percentile_ms(99) == pytest.approx(99)
    assert lateness.percentile_ms(100) == pytest.approx(100)


def test_what_links_did_is_recorded_at_every_tick(tmp_path: Path) -> None:
    with bench(tmp_path, devices=3, timescale=Timescale(2.0)) as made:
        made.loop.begin(START_S)
        made.run(4)
        found = read_achieved(tmp_path / "links.achieved")
        assert found.tick.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert found.rows["up_sent_bytes"][-3:].tolist() == [4, 5, 6]
        # Noted in the emulation's seconds, as everything in a run's record is.
        since_s = found.mono_s[-1] / 2 - START_S
        assert 3 * TICK_S / 2 <= since_s < 3 * TICK_S / 2 + 2 * STEP_S
