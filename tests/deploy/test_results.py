"""Every number of a summary, worked out by hand from a small record."""

import json
from pathlib import Path

import pytest
from run_record import (
    DEVICES,
    RunWriter,
    write_device_0,
    write_end,
    write_start,
    write_validation,
    write_whole_run,
)

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.results.compute import compute_summary
from fadelab.results.schema import (
    Contact,
    Joules,
    Lateness,
    Staleness,
    StartUp,
    Summary,
    UpdateCounts,
)


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    write_whole_run(RunWriter(tmp_path))
    return compute_summary(tmp_path)


def test_a_run_within_all_bounds_is_valid(summary: Summary) -> None:
    assert summary.invalid_reasons == []
    assert summary.valid
    assert summary.name == "quickstart"


def test_times_are_counted_from_the_start_and_from_the_command(summary: Summary) -> None:
    assert summary.duration_s == 3.0
    # The last event of server, emulator and launcher is that of second 3.2, 6.2 after the command.
    assert summary.wall_s == pytest.approx(6.2)
    assert summary.start_up == StartUp(
        links_s=1.25, agents_forked_s=1.5, all_joined_s=2.5, median_private_memory_mib=6.0
    )
    assert [device.join_s for device in summary.devices.values()] == [2.0, 2.5]
    assert summary.lateness == Lateness(ticks=8, p50_ms=0.2, p99_ms=1.5, max_ms=2.5)


def test_the_curve_is_in_the_order_of_versions_with_the_bytes_sent_until_then(
    summary: Summary,
) -> None:
    task = summary.tasks["digits"]
    points = [(p.version, p.t_s, p.value, p.loss, p.wire_up_bytes) for p in task.curve]
    assert points == [
        (0, 0.0, 0.1, 2.3, 5_000),
        (1, 1.8, 0.7, 0.9, 50_000),
        (2, 2.8, 0.6, 1.0, 104_000),
    ]
    assert (task.final, task.best, task.versions) == (0.6, 0.7, 2)


def test_bytes_are_explained_where_connections_were_seen_and_residual_elsewhere(
    summary: Summary,
) -> None:
    seen, unseen, total = (
        summary.devices["0"].bytes,
        summary.devices["1"].bytes,
        summary.total.bytes,
    )
    assert (seen.connections, unseen.connections, total.connections) == (3, None, None)
    # 87 960 bytes were sent, 60 of them still waited.
    assert (seen.up.framing, seen.up.retransmitted, seen.up.residual) == (680, 3_000, 2_100)
    assert (unseen.up.payload, unseen.up.packet_headers, unseen.up.residual) == (20_000, 80, 4_920)
    assert (total.up.payload, total.up.residual, total.up.wire) == (100_000, 7_020, 115_000)
    assert (total.down.payload, total.down.residual, total.down.wire) == (100_000, 220, 111_000)


def test_updates_are_complete_partial_or_lost(summary: Summary) -> None:
    assert summary.devices["0"].updates == UpdateCounts(started=2, complete=2, partial=0, lost=0)
    assert summary.devices["1"].updates == UpdateCounts(started=3, complete=0, partial=1, lost=2)
    assert summary.total.updates == UpdateCounts(started=5, complete=2, partial=1, lost=2)
    assert summary.total.staleness == Staleness(versions=[0, 1], seconds=[1.0, 1.25])


def test_contacts_end_with_the_run_though_the_timeline_goes_on(summary: Summary) -> None:
    assert summary.devices["0"].contacts == [
        Contact(start_s=0.0, end_s=1.0),
        Contact(start_s=1.5, end_s=3.0),
    ]
    assert summary.devices["1"].contacts == [
        Contact(start_s=0.0, end_s=0.5),
        Contact(start_s=2.0, end_s=3.0),
    ]


def test_fidelity_and_goodput_of_a_link(summary: Summary) -> None:
    up, down = summary.devices["0"].up, summary.devices["0"].down
    assert (up.programmed_bytes, up.achieved_bytes, up.stretches) == (80_000.0, 79_000, 1)
    assert up.ratio == pytest.approx(0.9875)
    assert up.programmed_goodput_bps == pytest.approx(1e6)
    assert up.achieved_goodput_bps == pytest.approx(8 * 60_000 / 0.5)
    assert down.ratio is None
    assert down.programmed_goodput_bps == pytest.approx(2e6)
    assert down.achieved_goodput_bps == pytest.approx(8 * 45_000 / 0.2)
    assert summary.devices["1"].up.achieved_goodput_bps is None


def test_resumptions_and_energy(summary: Summary) -> None:
    assert summary.devices["0"].resume_ms == [12.5]
    assert summary.total.resume_p95_ms == 12.5
    assert summary.devices["0"].joules == Joules(compute=3.0, uplink=0.5, downlink=0.4)
    assert summary.total.joules == Joules(compute=5.0, uplink=0.5, downlink=0.4)
    assert summary.devices["0"].private_memory_mib == 6.0
    assert summary.devices["1"].private_memory_mib is None


def test_a_loss_that_is_not_finite_leaves_a_gap_and_a_missing_metric_leaves_no_point(
    tmp_path: Path,
) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    write_validation(run, 3, 0.05, None)
    write_validation(run, 4, None, None)
    task = compute_summary(tmp_path).tasks["digits"]
    assert [point.version for point in task.curve] == [0, 1, 2, 3]
    assert task.curve[-1].loss is None
    assert (task.final, task.best) == (0.05, 0.7)


def test_an_interrupted_run_has_a_summary_that_says_so(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_start(run)
    write_device_0(run)
    run.fail("interrupted before the run was over")
    summary = compute_summary(tmp_path)
    assert not summary.valid
    assert summary.invalid_reasons[0] == (
        "The run did not finish: interrupted before the run was over."
    )
    assert summary.duration_s == 0.0
    assert summary.tasks["digits"].curve == []
    assert summary.devices["0"].contacts == []


def test_a_run_that_never_began_still_has_a_summary(tmp_path: Path) -> None:
    RunWriter(tmp_path)
    summary = compute_summary(tmp_path)
    assert not summary.valid
    assert list(summary.devices) == [str(device) for device in range(DEVICES)]
    assert summary.devices["0"].join_s is None
    assert summary.start_up.median_private_memory_mib is None


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    write_whole_run(RunWriter(tmp_path))
    with (tmp_path / "events" / "server-0.jsonl").open("a") as file:
        file.write('{"event": "upload_comp')
    assert compute_summary(tmp_path).valid


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        ("manifest.json", None, "is not a run directory"),
        ("manifest.json", "{", "is damaged"),
        ("manifest.json", "null", "a field is missing or wrong"),
        ("manifest.json", "{}", "a field is missing or wrong"),
        ("events/server-0.jsonl", "{\n{}\n", "is damaged"),
        ("links.schedule", "nothing of the kind", "is no link schedule"),
    ],
)
def test_a_damaged_run_directory_is_refused_with_a_sentence(
    path: str, content: str | None, sentence: str, tmp_path: Path
) -> None:
    write_whole_run(RunWriter(tmp_path))
    if content is None:
        (tmp_path / path).unlink()
    else:
        (tmp_path / path).write_text(content)
    with pytest.raises(FadelabError, match=sentence) as caught:
        compute_summary(tmp_path)
    assert caught.value.code == ExitCode.USAGE


def test_an_experiment_that_this_version_does_not_know_is_refused_by_key(tmp_path: Path) -> None:
    write_whole_run(RunWriter(tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["experiment"]["devices"]["wings"] = 2
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FadelabError, match=r"unknown key 'devices\.wings'"):
        compute_summary(tmp_path)


def test_without_an_account_of_the_links_a_run_is_not_valid(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_start(run)
    write_end(run)
    assert (
        "The run did not finish: the emulator wrote no account of its links."
        in compute_summary(tmp_path).invalid_reasons
    )
