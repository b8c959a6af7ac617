"""The formula twin of run directories: decisions made again, durations, and where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.run_record import DEVICES, RATE_UP_BPS, TICK_S, RunWriter, write_whole_run

from fadelab.results.compute import compute_summary
from fadelab.results.record import RunRecord
from fadelab.twin.compute import formula_twin
from fadelab.twin.schema import TwinResult
from fadelab.twin.timeline import Timeline
from fadelab_agent.contact_decision import decision_event
from fadelab_agent.policy import ContactObservation, MadsConfig, Observation, build_policy

N = 10_000
MADS = {"name": "mads", "contacts": {"allowance_j": 0.1}}
CONTACT = ContactObservation(
    power_w=0.2,
    max_power_w=0.2,
    bandwidth_hz=1e4,
    snr_per_w=1e4,
    full_rate_bps=1.1e5,
    staleness=3.0,
    expected_staleness=4.0,
    mean_contact_s=6.0,
    first_squared_norm=2.0,
    queue_j=1 / 30,
    allowance_j=0.1,
    setup_s=0.2,
    acknowledgement_s=0.1,
    download_s=0.7,
    max_payload_bytes=16384,
)
SEEN = Observation(
    dimension=6 * N,
    update_number=1,
    base_age_s=12.0,
    rate_up_bps=1e5 / 3,
    snr_db=33.0,
    predicted_contact_s=10.0,
    squared_norm=4.0,
    layers=(6 * N,),
    contact=CONTACT,
)


def plan_event(**changes: Any) -> dict[str, Any]:
    plan = build_policy(MadsConfig()).decide(SEEN)
    return {**decision_event("digits", SEEN, plan, base_version=0), **changes}


def begun(folder: Path, method: dict[str, Any]) -> RunWriter:
    """Return a run of 3 s in which device 0 has used one of its two contacts."""
    writer = RunWriter(folder, method=method)
    writer.schedule()
    writer.write("server", 0.0, "run_started", start_mono_s=103.0)
    writer.write("server", 3.0, "run_stopped", reason="over")
    writer.write("agent-0", 0.1, "model_received", version=0, payload_bytes=4 * N, packets=3)
    used(writer, 0.9)
    return writer


@pytest.fixture
def run(tmp_path: Path) -> RunWriter:
    return begun(tmp_path, MADS)


def used(run: RunWriter, t_s: float, **fields: Any) -> None:
    usual = {
        "task": "digits",
        "update_id": 1,
        "power_w": 0.2,
        "energy_j": 0.1,
        "allowance_j": 0.1,
        "queue_j": 0.0,
        "acknowledged": True,
    }
    run.write("agent-0", t_s, "contact_used", **usual | fields)


def twin(run: RunWriter) -> TwinResult:
    found = formula_twin(RunRecord.load(run.folder))
    assert found is not None
    return found


def ended(run: RunWriter, t_s: float, open_s: float, **fields: Any) -> None:
    usual = {
        "task": "digits",
        "update_id": 1,
        "status": "UPLOAD_STATUS_COMPLETE",
        "attempts": 1,
        "coded_bits": 8 * 75_000,
        "packets": 5,
        "datagram_packets": 0,
        "open_s": open_s,
    }
    run.write("agent-0", t_s, "upload_ended", **usual | fields)


def test_the_same_observations_lead_to_the_same_decisions(run: RunWriter) -> None:
    run.write("agent-0", 0.2, "plan", **plan_event())
    replay = twin(run).decisions
    assert (replay.replayed, replay.mismatches, replay.incomplete) == (1, 0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"k_keep": 17},
        {"planned_power_w": 0.0123},
        {"safe_contact_s": 7.9},
        {"weight": 4.999999999},
        {"queue_j": 0.2},
        {"squared_norm": 4.001},
    ],
    ids=str,
)
def test_a_decision_that_comes_out_otherwise_is_counted_and_named(
    run: RunWriter, changes: dict[str, Any]
) -> None:
    run.write("agent-0", 0.2, "plan", **plan_event())
    run.write("agent-1", 0.25, "plan", **plan_event(**changes, update_id=7))
    replay = twin(run).decisions
    assert (replay.replayed, replay.mismatches) == (2, 1)
    assert replay.mismatched == ["device 1, update 7, 0.250 s"]


def test_a_last_bit_is_a_difference(run: RunWriter) -> None:
    event = plan_event()
    lowered = event["planned_power_w"] * (1 - 2**-52)
    assert lowered != event["planned_power_w"]
    run.write("agent-0", 0.2, "plan", **event | {"planned_power_w": lowered})
    assert twin(run).decisions.mismatches == 1


def test_a_contact_that_was_skipped_without_reason_is_a_difference(run: RunWriter) -> None:
    run.write("agent-0", 0.2, "contact_skipped", **plan_event())
    assert twin(run).decisions.mismatches == 1


def test_what_was_not_logged_in_full_is_not_made_again(run: RunWriter) -> None:
    event = plan_event()
    del event["layers"]
    run.write("agent-0", 0.2, "plan", **event)
    replay = twin(run).decisions
    assert (replay.replayed, replay.incomplete) == (0, 1)


def test_an_upload_that_takes_what_the_rate_allows_is_off_by_nothing(run: RunWriter) -> None:
    # 75 000 bytes, 40 + 3 + 5 + 9 for each of 5 packets of 15 000, in 52 segments with 66 each.
    message = 75_000 + 5 * 57
    segments = -(-message // 1448)
    exact_s = 8 * (message + 66 * segments) / RATE_UP_BPS
    ended(run, 0.1 + exact_s, exact_s)
    durations = twin(run).durations
    assert durations.compared == 1
    assert durations.uploads[0].wire_packets == segments == 52
    assert durations.uploads[0].formula_s == pytest.approx(exact_s, abs=1e-4)
    assert durations.median_deviation == pytest.approx(0.0, abs=1e-3)


def test_an_upload_that_takes_longer_is_off_by_as_much(run: RunWriter) -> None:
    ended(run, 0.9, 0.75)
    durations = twin(run).durations
    assert durations.median_ratio == pytest.approx(0.75 / 0.6298, rel=1e-3)
    assert durations.median_deviation == pytest.approx(0.75 / 0.6298 - 1, rel=5e-3)


def test_an_upload_that_the_formula_does_not_get_through_is_told_apart(run: RunWriter) -> None:
    # The window closes after a second; by formula the update takes 0.63.
    ended(run, 1.0, 0.4)
    durations = twin(run).durations
    assert (durations.compared, durations.too_long_by_formula) == (0, 1)
    assert durations.uploads[0].formula_s is None
    assert durations.median_deviation is None


def test_the_servers_part_of_a_duration_is_told_apart(run: RunWriter) -> None:
    ended(run, 0.9, 0.75)
    assert twin(run).durations.median_answer_s is None
    run.upload("upload_complete", 0.85, 0, update_id=1, last_mono_s=103.8)
    durations = twin(run).durations
    assert durations.uploads[0].arrived_s == pytest.approx(0.65)
    assert durations.median_answer_s == pytest.approx(0.1)


def test_short_uploads_are_shown_and_do_not_count(run: RunWriter) -> None:
    ended(run, 0.3, 0.2, coded_bits=8 * 20_000, packets=2)
    durations = twin(run).durations
    assert (durations.compared, len(durations.uploads)) == (0, 1)
    assert durations.median_deviation is None


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "UPLOAD_STATUS_CLOSED"},
        {"attempts": 2},
        {"datagram_packets": 3},
        {"open_s": 0.0},
    ],
    ids=str,
)
def test_uploads_that_were_cut_or_went_otherwise_are_left_out(
    run: RunWriter, fields: dict[str, Any]
) -> None:
    ended(run, 0.9, **({"open_s": 0.7} | fields))
    assert twin(run).durations.uploads == []


def test_an_upload_over_two_contacts_is_left_out(run: RunWriter) -> None:
    # Device 0 is in contact from 0 to 1 s and from 1.5 s on: 0.6 s before the gap, 0.8 s after it.
    ended(run, 2.3, 1.4)
    assert twin(run).durations.uploads == []


def test_sockets_and_twin_stand_side_by_side(tmp_path: Path) -> None:
    run = begun(tmp_path, {"name": "afl"})
    run.write("agent-0", 0.2, "plan", **plan_event(dimension=N, layers=[N]))
    ended(run, 0.9, 0.6)
    run.upload("upload_complete", 0.9, 0, update_id=1, staleness_versions=2, samples=50)
    found = twin(run).run
    assert found is not None
    pair = found.devices["0"]
    assert (pair.sockets.sent, pair.sockets.acknowledged) == (1, 1)
    assert (pair.sockets.staleness, pair.sockets.upload_s) == (2.0, 0.6)
    assert pair.sockets.energy_j == pytest.approx(0.1)
    assert pair.sockets.k_keep == plan_event()["k_keep"]
    # In each of its two windows the whole model, three packets in 28 segments.
    assert (pair.twin.contacts, pair.twin.sent, pair.twin.acknowledged) == (2, 2, 2)
    assert pair.twin.k_keep == N
    exact_s = 8 * (4 * N + 3 * 57 + 28 * 66) / RATE_UP_BPS
    assert pair.twin.upload_s == pytest.approx(exact_s)
    assert pair.twin.energy_j == pytest.approx(2 * 0.2 * exact_s)
    assert found.total.twin == pair.twin
    # Device 1 has met nobody, so nothing is known of what it would have sent.
    assert set(found.devices) == {"0"}


def test_without_the_powers_in_force_there_is_no_second_run(run: RunWriter) -> None:
    run.write("agent-0", 0.2, "plan", **plan_event())
    used(run, 2.0, update_id=2, power_w=0.05)
    assert twin(run).run is None
    run.write("emulator", 1.5, "power_in_force", tick=3, device=0, power_w=0.05)
    assert twin(run).run is not None


def test_powers_in_force_are_taken_from_their_tick_on(run: RunWriter) -> None:
    run.write("emulator", 1.5, "power_in_force", tick=3, device=0, power_w=0.05)
    run.write("emulator", 2.0, "power_in_force", tick=4, device=0, power_w=0.2)
    record = RunRecord.load(run.folder)
    assert record.schedule is not None
    link = Timeline.of(record, record.schedule).link(0)
    # Half the power of the recorded one is less than the recorded rate; a larger one is more.
    rates = [link.view(tick * TICK_S, 0.1).rate_up_bps for tick in range(5)]
    assert rates[0] < RATE_UP_BPS < rates[3]
    assert rates[4] == pytest.approx(rates[0])


def test_links_of_boards_have_no_twin_run(run: RunWriter) -> None:
    run.write("agent-0", 0.2, "plan", **plan_event())
    path = run.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"real_links": [0]}))
    assert twin(run).run is None


def test_methods_without_contacts_have_no_twin(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    write_whole_run(writer)
    summary = compute_summary(tmp_path)
    assert summary.twin is None
    assert len(summary.devices) == DEVICES
