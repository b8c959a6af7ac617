import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
from tests.system.commands import QUICKSTART, ROOT, Ended, fadelab
from tests.system.conftest import ShortRun
from tests.system.test_timelines_in_runs import ticks_of

Run = Callable[..., Ended]


def events(run_dir: Path, name: str) -> list[dict[str, object]]:
    found = []
    for path in sorted((run_dir / "events").glob("*.jsonl")):
        found += [json.loads(line) for line in path.read_text().splitlines()]
    return [event for event in found if event["event"] == name]


def decisions(run_dir: Path) -> dict[tuple[str, int], tuple[object, ...]]:
    """What each device decided for each of its updates, as far as seeds and plans determine it."""
    plans = {
        (str(event["id"]), int(str(event["update_id"]))): (event["codec"], event["estimated_bits"])
        for event in events(run_dir, "plan")
    }
    trained = {
        (str(event["id"]), int(str(event["update_id"]))): (event["steps"], event["batch_size"])
        for event in events(run_dir, "trained")
    }
    return {key: (*plans[key], *trained[key]) for key in plans.keys() & trained.keys()}


def partition_sizes(run_dir: Path) -> dict[object, object]:
    return {e["device"]: e["samples"] for e in events(run_dir, "upload_complete")}


def test_a_short_run_is_valid_and_its_summary_keeps_its_published_schema(
    short_run: ShortRun,
) -> None:
    ended = short_run.ended
    assert ended.code == 0, ended.output
    schema = json.loads((ROOT / "docs" / "schemas" / "summary.schema.json").read_text())
    jsonschema.validate(ended.summary, schema)
    summary = ended.summary
    assert summary["valid"] is True
    task = summary["tasks"]["digits"]  # type: ignore[index]
    assert task["final"] > 0.6
    assert task["versions"] == summary["total"]["updates"]["complete"]  # type: ignore[index]
    assert len(summary["devices"]) == 8  # type: ignore[arg-type]
    assert events(ended.run_dir, "update_spooled")
    assert not (ended.run_dir / "state").exists()
    report = (ended.run_dir / "report.html").read_text()
    assert "VALID" in report
    assert "src=" not in report


def test_wire_bytes_come_from_the_interfaces_and_no_packet_came_twice(
    short_run: ShortRun,
) -> None:
    ended = short_run.ended
    accounts = {e["device"]: e for e in events(ended.run_dir, "link_account")}
    for name, device in ended.summary["devices"].items():  # type: ignore[attr-defined]
        for direction in ("up", "down"):
            found = device["bytes"][direction]["wire"]
            assert found == accounts[int(name)][f"{direction}_wire_bytes"] > 0
    uploads = events(ended.run_dir, "upload_complete")
    for upload in uploads:
        assert upload["duplicates"] == 0


def test_same_seed_same_schedule_partition_and_decisions(run: Run, short_run: ShortRun) -> None:
    first, second = short_run.ended, run("second", "duration_s=8")
    other = run("other", "duration_s=2", "seed=3")
    original, same, different = (ticks_of(ended.run_dir) for ended in (first, second, other))
    assert len(original) > len(same) > 8 * 10 * 36 * 8
    assert same == original[: len(same)]
    assert len(different) > 2 * 10 * 36 * 8
    assert different != original[: len(different)]
    one, two = decisions(first.run_dir), decisions(second.run_dir)
    common = one.keys() & two.keys()
    assert len(common) >= 8
    assert {key: one[key] for key in common} == {key: two[key] for key in common}
    sizes = [partition_sizes(r.run_dir) for r in (first, second)]
    shared = sizes[0].keys() & sizes[1].keys()
    assert shared
    assert all(sizes[0][device] == sizes[1][device] for device in shared)


def test_synchronous_rounds_over_a_lossy_fixed_link(run: Run, tmp_path: Path) -> None:
    experiment = tmp_path / "rounds.yaml"
    experiment.write_text(
        """
name: rounds
duration_s: 30
max_versions: 4
devices: {count: 3}
task: {name: digits, model: {kind: logistic}}
partition: {kind: iid}
training: {local_epochs: 1, batch_size: 16, learning_rate: 0.5}
method: {name: fedavg}
radio:
  mobility: {kind: static, placement: {kind: uniform}}
  rate: {kind: fixed, rate_up_bps: 2e+6, rate_down_bps: 2e+6}
  packet_loss_up: 0.03
  packet_loss_down: 0.03
"""
    )
    ended = run("rounds", experiment=experiment)
    assert ended.code == 0, ended.output
    published = events(ended.run_dir, "version_published")
    assert [event["version"] for event in published] == [1, 2, 3, 4]
    uploads = events(ended.run_dir, "upload_complete")
    per_round = {(u["base_version"], u["device"]) for u in uploads}
    assert len(per_round) == len(uploads) == 12


def test_devices_out_of_contact_keep_their_update_until_the_next_window(run: Run) -> None:
    # Dense updates take 3 s: most contact windows close in the middle of a transfer.
    ended = run(
        "cut",
        "duration_s=10",
        "devices.count=4",
        "method.upload={kind: dense}",
        "radio.rate={kind: fixed, rate_up_bps: 4.0e+5, rate_down_bps: 4.0e+6}",
        "radio.contact={kind: exponential, mean_contact_s: 1.5, mean_gap_s: 0.5}",
    )
    assert ended.code == 0, ended.output
    uploads = events(ended.run_dir, "upload_complete")
    waited = [
        u
        for u in uploads
        if float(str(u["last_mono_s"])) - float(str(u["mark_mono_s"])) > 0
        and any(
            c["device"] == u["device"]
            and float(str(u["started_mono_s"]))
            < float(str(c["applied_mono_s"]))
            < float(str(u["last_mono_s"]))
            for c in events(ended.run_dir, "contact_closed")
        )
    ]
    assert waited, "no upload spanned a closed window: the test's link is too fast"
    assert all(u["duplicates"] == 0 for u in waited)
    assert ended.summary["total"]["leaked_packets"] == 0  # type: ignore[index]
    resumes = [ms for d in ended.summary["devices"].values() for ms in d["resume_ms"]]  # type: ignore[attr-defined]
    assert resumes


def test_a_missing_data_set_is_one_sentence_and_its_code(run: Run, tmp_path: Path) -> None:
    ended = run("missing", "task.name=mnist", f"task.data_dir={tmp_path}")
    assert ended.code == 5
    assert re.search(r"fadelab: .*mnist.*MNIST/raw", ended.output.replace("\n", " "), re.IGNORECASE)
    assert "Traceback" not in ended.output


def test_without_user_namespaces_an_ordinary_user_is_told_the_remedy(tmp_path: Path) -> None:
    # A user namespace in which no further one may be made, entered by a process that then gives
    # up the capabilities it would need to do without.
    inside = (
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv "
        "--bounding-set=-sys_admin,-net_admin --inh-caps=-all "
        + shlex.join(fadelab("run", str(QUICKSTART), "--out", str(tmp_path / "run")))
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", inside],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "user namespaces are switched off" in done.stderr
    assert "sysctl user.max_user_namespaces" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
