"""Each bound that a run breaks gives one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_record import COMMAND_S, START_S, RunWriter, write_device_1, write_end, write_whole_run

from fadelab.experiment import ValidityConfig
from fadelab.results.bounds import rate_holds
from fadelab.results.compute import compute_summary
from fadelab.results.schema import LinkFidelity

BLUR_BYTES = 3 * 1514


def link(programmed: float, achieved: float, stretches: int = 0) -> LinkFidelity:
    return LinkFidelity(
        programmed_bytes=programmed,
        achieved_bytes=round(achieved),
        stretches=stretches,
        ratio=achieved / programmed if programmed else None,
        programmed_goodput_bps=None,
        achieved_goodput_bps=None,
        leaked_packets=0,
        connectivity=None,
        loss=None,
        delay=None,
    )


@pytest.mark.parametrize(
    ("fidelity", "fine"),
    [
        (link(1e6, 1e6), True),
        (link(1e6, 970_000), True),
        (link(1e6, 969_999), False),
        (link(1e6, 1_030_000), True),
        (link(1e6, 1_030_001), False),
        (link(1e6, 970_000 - 2 * BLUR_BYTES, stretches=2), True),
        (link(1e6, 969_999 - 2 * BLUR_BYTES, stretches=2), False),
        (link(1e6, 1_030_000 + 2 * BLUR_BYTES, stretches=2), True),
        (link(1e6, 1_030_001 + 2 * BLUR_BYTES, stretches=2), False),
        (link(75_699, 0), True),
        (link(75_700, 0), False),
        (link(0, 0), True),
    ],
)
def test_a_link_may_be_off_by_the_bounds_and_by_three_frames_for_each_stretch(
    fidelity: LinkFidelity, fine: bool
) -> None:
    assert rate_holds(fidelity, ValidityConfig()) is fine


def test_of_a_delayed_link_only_too_much_can_be_told() -> None:
    assert rate_holds(link(1e6, 300_000), ValidityConfig(), is_delayed=True)
    assert not rate_holds(link(1e6, 1_200_000), ValidityConfig(), is_delayed=True)


def reasons(folder: Path, write: Any = None, **experiment: Any) -> list[str]:
    run = RunWriter(folder, **experiment)
    write_whole_run(run)
    if write is not None:
        write(run)
    summary = compute_summary(folder)
    assert summary.valid == (not summary.invalid_reasons)
    return summary.invalid_reasons


def test_a_whole_run_gives_no_reason(tmp_path: Path) -> None:
    assert reasons(tmp_path) == []


def test_late_ticks(tmp_path: Path) -> None:
    assert reasons(tmp_path, lambda run: run.lateness(p99_ms=23.45)) == [
        "Link updates were late: 1 % by more than 23.4 ms, 20 ms are allowed."
    ]


def test_leaked_packets(tmp_path: Path) -> None:
    def leak(run: RunWriter) -> None:
        run.account(0, up_leaked_packets=2, down_leaked_packets=1, up_wire_bytes=90_000)

    assert reasons(tmp_path, leak) == ["Packets passed closed contact windows: 3, 0 are allowed."]


def test_leaked_packets_that_are_allowed(tmp_path: Path) -> None:
    def leak(run: RunWriter) -> None:
        run.account(0, up_leaked_packets=2, up_wire_bytes=90_000)

    assert reasons(tmp_path, leak, validity={"leaked_packets": 2}) == []


def test_slow_resumption(tmp_path: Path) -> None:
    def resume(run: RunWriter) -> None:
        run.write("emulator", 2.0, "resumed", device=1, opened_mono_s=START_S, resume_s=0.2125)

    # Two readings of 12.5 and 212.5 ms: the 95th percentile lies 95 % of the way between them.
    assert reasons(tmp_path, resume) == [
        (
            "Uplinks resumed late after windows reopened: 5 % after more than 202.5 ms, "
            "50 ms are allowed."
        )
    ]


def test_links_that_do_not_obey_are_named_with_their_ratio(tmp_path: Path) -> None:
    def disobey(run: RunWriter) -> None:
        run.account(
            0,
            up_programmed_bytes=1e6,
            up_achieved_bytes=900_000,
            down_programmed_bytes=1e6,
            down_achieved_bytes=1_100_000,
        )

    assert reasons(tmp_path, disobey) == [
        (
            "2 of 4 links did not obey their programmed rate "
            "(achieved / programmed outside 0.97 to 1.03): "
            "device 0 uplink at 0.900, device 0 downlink at 1.100."
        )
    ]


def test_devices_that_never_joined_and_agents_that_ended_early(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.schedule()
    run.write("server", 0.0, "run_started", start_mono_s=START_S)
    run.write("agent-1", COMMAND_S - START_S + 2, "joined")
    run.write(
        "launcher", 1.0, "agent_ended_early", who="agent 0", how="agent 0 ended early: SIGKILL"
    )
    write_device_1(run)
    run.account(0)
    write_end(run)
    assert compute_summary(tmp_path).invalid_reasons == [
        "agent 0 ended early: SIGKILL.",
        "1 of 2 devices never joined.",
    ]


def test_a_server_that_wrote_no_end(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    log = tmp_path / "events" / "server-0.jsonl"
    lines = [line for line in log.read_text().splitlines() if '"run_stopped"' not in line]
    log.write_text("\n".join(lines) + "\n")
    assert compute_summary(tmp_path).invalid_reasons == [
        "The run did not finish: the server wrote no end."
    ]


def without(folder: Path, who: str, *events: str) -> None:
    for log in (folder / "events").glob(f"{who}-*.jsonl"):
        lines = log.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["event"] not in events]
        log.write_text("".join(line + "\n" for line in kept))


def test_a_run_in_which_nothing_was_tried_shows_nothing(tmp_path: Path) -> None:
    write_whole_run(RunWriter(tmp_path))
    without(tmp_path, "server", "version_published", "upload_complete", "upload_partial")
    without(tmp_path, "agent", "plan")
    assert compute_summary(tmp_path).invalid_reasons == [
        "No model version of task digits was published, and no device began to send an update."
    ]


def test_that_links_let_no_update_through_is_a_finding(tmp_path: Path) -> None:
    write_whole_run(RunWriter(tmp_path))
    without(tmp_path, "server", "version_published", "upload_complete")
    summary = compute_summary(tmp_path)
    assert summary.valid, summary.invalid_reasons
    assert summary.tasks["digits"].versions == 0
    assert summary.total.updates.started > 0


def test_a_failure_is_given_in_its_own_words_with_one_full_stop(tmp_path: Path) -> None:
    found = reasons(tmp_path, lambda run: run.fail("the server ended with an error."))
    assert found == ["The run did not finish: the server ended with an error."]


def test_links_that_were_not_shaped(tmp_path: Path) -> None:
    found = reasons(tmp_path, lambda run: run.ready(backend="dry", variant="dry", why="asked for"))
    assert found == [
        "Links were not shaped: the back-end 'dry' records the timeline and emulates nothing."
    ]


def test_links_that_missed_their_calibration(tmp_path: Path) -> None:
    def calibrate(run: RunWriter) -> None:
        run.calibrated()
        run.calibrated(direction="down", programmed_bps=2e6, achieved_bps=1.8e6)
        run.calibrated(device=1, programmed_delay_s=0.02, achieved_delay_s=0.025)
        run.calibrated(device=1, direction="down", achieved_delay_s=None)

    assert reasons(tmp_path, calibrate) == [
        (
            "3 of 4 links that were measured before the run missed their rate or delay "
            "(rate off by more than 2 % and two packets, delay off by more than 1 % and 0.5 ms): "
            "device 0 downlink with 1.800 Mbit/s for 2.000 Mbit/s and 0.10 ms for 0.00 ms, "
            "device 1 uplink with 1.001 Mbit/s for 1.000 Mbit/s and 25.00 ms for 20.00 ms, "
            "device 1 downlink with 1.001 Mbit/s for 1.000 Mbit/s and no delay probe came through."
        )
    ]


def test_losses_that_chance_does_not_explain(tmp_path: Path) -> None:
    def lose(run: RunWriter) -> None:
        run.account(
            0,
            up_wire_bytes=90_000,
            up_arrived_packets=10_000,
            up_lost_packets=160,
            up_expected_losses=100.0,
            down_arrived_packets=10_000,
            down_lost_packets=140,
            down_expected_losses=100.0,
        )

    assert reasons(tmp_path, lose) == [
        (
            "1 of 4 links did not lose what they were programmed to (more than 5 standard "
            "deviations off): device 0 uplink lost 160 of 10000 packets, 100.0 were expected "
            "(z = 6.0)."
        )
    ]


def test_delays_that_are_off(tmp_path: Path) -> None:
    def delay(run: RunWriter) -> None:
        for tick in range(5):
            run.delay_probe(0, tick, achieved_s=0.0514)
            run.delay_probe(1, tick, direction="down", achieved_s=0.053)

    assert reasons(tmp_path, delay) == [
        (
            "1 of 4 links did not keep their programmed delay (delay off by more than 1 % and "
            "0.5 ms): device 1 downlink at 53.00 ms instead of 50.00 ms."
        )
    ]


def test_packets_through_closed_links_are_named_by_link(tmp_path: Path) -> None:
    def leak(run: RunWriter) -> None:
        run.achieved({"through_packets": [[t, t] for t in range(8)]})

    assert reasons(tmp_path, leak) == [
        (
            "Packets passed closed links in 1 of 3 intervals between readings, 0 are allowed: "
            "device 1 uplink in 1."
        )
    ]


def test_packets_that_wait_at_an_open_link(tmp_path: Path) -> None:
    def wait(run: RunWriter) -> None:
        run.achieved({"through_packets": [[7, 7]] * 8, "backlog_bytes": [[900, 0]] * 8})

    assert reasons(tmp_path, wait) == [
        (
            "Packets waited at open links and none passed in 5 of 5 intervals between readings "
            "(100.0 %), 1 % are allowed: device 0 uplink in 5."
        )
    ]


def test_a_few_intervals_in_which_packets_wait_are_allowed(tmp_path: Path) -> None:
    def wait(run: RunWriter) -> None:
        run.achieved({"through_packets": [[7, 7]] * 8, "backlog_bytes": [[900, 0]] * 8})

    assert reasons(tmp_path, wait, validity={"stuck_share": 1.0}) == []


def test_links_that_obey_give_no_reason(tmp_path: Path) -> None:
    def obey(run: RunWriter) -> None:
        run.ready()
        run.calibrated()
        for tick in range(6):
            run.delay_probe(0, tick)
        run.achieved({"through_packets": [[0, 0], [3, 0], [5, 0], [5, 0], *[[9, 4]] * 4]})

    assert reasons(tmp_path, obey) == []
