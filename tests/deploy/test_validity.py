"""Each bound that a run breaks gives one sentence."""

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


def test_a_run_without_a_new_version_learned_nothing(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    log = tmp_path / "events" / "server-0.jsonl"
    lines = [line for line in log.read_text().splitlines() if '"version_published"' not in line]
    log.write_text("\n".join(lines) + "\n")
    assert compute_summary(tmp_path).invalid_reasons == [
        "No model version of task digits was published."
    ]


def test_a_failure_is_given_in_its_own_words_with_one_full_stop(tmp_path: Path) -> None:
    found = reasons(tmp_path, lambda run: run.fail("the server ended with an error."))
    assert found == ["The run did not finish: the server ended with an error."]
