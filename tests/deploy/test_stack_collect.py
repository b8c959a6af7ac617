"""From two nodes' records to one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_record import COMMAND_S, START_S, RunWriter, write_whole_run

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.results.compute import compute_summary
from fadelab.stack.collect import collect_run
from fadelab_emulation.achieved import AchievedWriter, encode_rows, read_achieved
from fadelab_proto.events import read_events

RUN = "0000abcd"
AHEAD_S = 1000.0
"""By how much the clock of node 2 is behind the server's."""


@pytest.fixture
def testbed(tmp_path: Path) -> Path:
    """Return what was written, and beside it two nodes' /out: device 0 at n1, device 1 at n2."""
    whole = tmp_path / "n1"
    whole.mkdir()
    run = RunWriter(whole)
    run.ready()
    write_whole_run(run)
    bed = tmp_path / "bed"
    bed.mkdir()
    manifest = json.loads((whole / "manifest.json").read_text()) | {"run_id": RUN}
    (bed / "manifest.json").write_text(json.dumps(manifest))
    (whole / "manifest.json").unlink()
    if not (whole / "links.achieved").exists():
        zeros = [[0, 0]] * 6
        run.achieved({"sent_bytes": zeros})
    run.write("launcher", COMMAND_S - START_S, "conductor_started")
    shutil.copytree(whole, tmp_path / "n2")
    for process in ("server-0", "launcher-0", "agent-0", "validator-0"):
        (tmp_path / "n2" / "events" / f"{process}.jsonl").unlink(missing_ok=True)
    (tmp_path / "n1" / "events" / "agent-1.jsonl").unlink()
    for name, device, behind_s in (("n1", 0, 0.0), ("n2", 1, AHEAD_S)):
        folder = tmp_path / name
        (folder / "emulation.json").write_text(json.dumps({"node": name, "run_id": RUN}))
        _make_node(folder, device, behind_s)
    return bed


def _make_node(folder: Path, device: int, behind_s: float) -> None:
    """Turn a record of all links into that of a node with one device and a clock of its own."""
    path = folder / "events" / "emulator-0.jsonl"
    node = RunWriter.__new__(RunWriter)
    node.folder = folder
    node.write("emulator", -1.2, "link_given", device=device)
    node.write("emulator", -1.3, "clock_offset", offset_s=behind_s, error_s=0.001)
    events = read_events(path)
    for event in events:
        for key in event:
            if key.endswith("mono_s") and event[key] is not None:
                event[key] = float(str(event[key])) - behind_s
        if event["event"] == "wire":
            event |= {"up_bytes": 10 + device, "down_bytes": 20}
        if event["event"] == "lateness":
            event["p99_ms"] = 1.0 + device
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    found = read_achieved(folder / "links.achieved")
    (folder / "links.achieved").unlink()
    writer = AchievedWriter(folder / "links.achieved")
    for mono_s in np.unique(found.mono_s):
        rows = found.mono_s == mono_s
        writer.append(encode_rows(int(found.tick[rows][0]), mono_s - behind_s, found.rows[rows]))
    writer.close()


def collected(testbed: Path) -> Path:
    run = testbed.parent / "run"
    collect_run(testbed, [testbed.parent / "n1", testbed.parent / "n2"], run)
    return run


def test_the_record_of_two_nodes_is_that_of_one_machine(testbed: Path) -> None:
    run = collected(testbed)
    summary = compute_summary(run)
    assert summary.valid, summary.invalid_reasons
    assert summary.lateness.p99_ms == 2.0  # the later node's
    events = read_events(run / "events" / "emulator-0.jsonl")
    accounts = [event for event in events if event["event"] == "link_account"]
    assert [(event["device"], event["node"]) for event in accounts] == [(0, "n1"), (1, "n2")]
    times = [float(str(event["mono_s"])) for event in events]
    assert max(times) - min(times) < 10  # all by the server's clock
    achieved = read_achieved(run / "links.achieved")
    assert np.ptp(achieved.mono_s) < 10
    assert set(achieved.rows["device"].tolist()) == {0, 1}
    assert len(achieved.rows) == len(read_achieved(testbed.parent / "n1" / "links.achieved").rows)
    wire = [event["up_bytes"] for event in events if event["event"] == "wire"]
    assert not wire or wire[-1] == 21
    nodes = json.loads((run / "manifest.json").read_text())["nodes"]
    assert nodes["n2"] == {"devices": [1], "clock_offset_s": AHEAD_S}


def test_timelines_that_differ_make_the_run_invalid(testbed: Path) -> None:
    path = testbed.parent / "n2" / "links.schedule"
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    summary = compute_summary(collected(testbed))
    assert not summary.valid
    assert "timelines of n" in summary.invalid_reasons[0]


def test_a_device_that_was_at_two_nodes_makes_the_run_invalid(testbed: Path) -> None:
    node = RunWriter.__new__(RunWriter)
    node.folder = testbed.parent / "n1"
    node.write("emulator", 1.0, "link_given", device=1)
    summary = compute_summary(collected(testbed))
    assert "device 1 was at two nodes, n1 and n2" in summary.invalid_reasons[0]


@pytest.mark.parametrize(
    ("nodes", "change", "sentence"),
    [
        (["n2"], {}, "that of the server's node is missing"),
        (["n1", "n1"], {}, "two folders are of one node"),
        (["n1", "bed"], {}, "is no copy of a node's /out"),
        (["n1", "n2"], {"run_id": "1"}, "is of the run 0000abcd"),
        (["n1", "n2"], {"experiment": 3}, "is damaged"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    testbed: Path, nodes: list[str], change: dict[str, Any], sentence: str
) -> None:
    manifest = json.loads((testbed / "manifest.json").read_text())
    (testbed / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(FadelabError, match=sentence) as caught:
        collect_run(testbed, [testbed.parent / name for name in nodes], testbed.parent / "run")
    assert caught.value.code is ExitCode.USAGE
    assert not (testbed.parent / "run").exists()
