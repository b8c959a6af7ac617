"""`fadelab boards` from the outside: boards that are network namespaces with an SSH server each."""

import json
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.system.boards_scene import Boards, problem
from tests.system.commands import ROOT, wait_for_line

sys.path.insert(0, str(ROOT / "tests" / "emulation"))

import sandboxed

pytestmark = [
    pytest.mark.skipif(bool(problem()), reason=problem()),
    # A minute on a machine of its own; a busy one takes its time to install and to import torch.
    pytest.mark.timeout(600),
]

# Both boards are in contact all the time, and have enough to send to fill their links.
_SHORT = ("duration_s=6", "radio.contact={kind: always}")


def whole_story() -> dict[str, Any]:
    """Check, push, run, interrupt a run, lose a board in the midst of one, collect it later."""
    signal.alarm(540)
    boards = Boards(2)
    try:
        return _tell(boards, str(boards.inventory()))
    finally:
        boards.close()


def _tell(boards: Boards, inventory: str) -> dict[str, Any]:
    told: dict[str, Any] = {"before": boards.shaped()}
    told["check"] = boards.ended("boards", "check", inventory)
    told["too early"] = _finished(boards.run(boards.folder / "early", *_SHORT))
    told["push"] = boards.ended("boards", "push", inventory, "--offline")
    told["run"] = _finished(boards.run(boards.folder / "run", *_SHORT))
    told["record"] = _record(boards.folder / "run", boards.names)
    told["after"] = boards.shaped(), boards.left_running()

    process = boards.run(boards.folder / "interrupted", *_SHORT)
    wait_for_line(process, "links and namespaces are ready")
    told["while"] = boards.shaped()
    process.send_signal(signal.SIGINT)
    told["interrupted"] = _finished(process)
    told["after interruption"] = boards.shaped(), boards.left_running()

    process = boards.run(boards.folder / "lossy", *_SHORT)
    wait_for_line(process, "the run has begun")
    boards.cut_off(1)
    told["lossy"] = _finished(process)
    boards.connect_again(1)
    told["left there"] = boards.left_running()
    told["before collecting"] = _record(boards.folder / "lossy", boards.names)
    told["collect"] = boards.ended("boards", "collect", inventory, str(boards.folder / "lossy"))
    told["collected"] = _record(boards.folder / "lossy", boards.names)
    return told


def _finished(process: Any) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def _record(run_dir: Path, names: list[str]) -> dict[str, Any]:
    timelines = [run_dir / "boards" / name / "link" / "links.schedule" for name in names]
    return {
        "files": sorted(path.name for path in run_dir.iterdir()),
        "events": sorted(path.name for path in (run_dir / "events").iterdir()),
        "summary": json.loads((run_dir / "summary.json").read_text()),
        "timelines": [path.read_bytes() for path in timelines if path.exists()],
        "offsets": [
            event["device"]
            for line in (run_dir / "events" / "launcher-0.jsonl").read_text().splitlines()
            if (event := json.loads(line))["event"] == "clock_offset"
        ],
    }


@cache
def told() -> dict[str, Any]:
    return sandboxed.in_sandboxes([whole_story], clean=True)[0]


def test_boards_are_checked_and_what_is_missing_is_said() -> None:
    code, output = told()["check"]
    assert code == 0, output
    assert "10.9.0.2" in output
    assert "10.9.0.3" in output
    assert "model only" in output
    code, output = told()["too early"]
    assert code == 6
    assert "Fadelab is not installed there: `fadelab boards push`" in output


def test_a_run_on_boards_is_valid_and_leaves_a_whole_run_directory() -> None:
    assert told()["push"][0] == 0, told()["push"][1]
    code, output = told()["run"]
    assert code == 0, output
    record = told()["record"]
    assert {"manifest.json", "summary.json", "report.html", "links.schedule"} <= set(
        record["files"]
    )
    assert record["events"] == [
        *("agent-0.jsonl", "agent-1.jsonl", "emulator-0.jsonl", "launcher-0.jsonl"),
        *("server-0.jsonl", "validator-0.jsonl"),
    ]
    summary = record["summary"]
    assert summary["valid"]
    assert summary["tasks"]["digits"]["versions"] > 0
    # Before the run and after it, for each board.
    assert sorted(record["offsets"]) == [0, 0, 1, 1]


def test_links_obey_the_timeline_on_which_boards_agree() -> None:
    record = told()["record"]
    one, other = record["timelines"]
    assert one.startswith(other) or other.startswith(one)
    for device in record["summary"]["devices"].values():
        for way in ("up", "down"):
            assert device[way]["programmed_bytes"] > 75_700
            # A busy machine serves a link late, never early; the verdict allows for its stretches.
            assert 0.7 < device[way]["ratio"] < 1.03
            assert device["bytes"][way]["wire"] > 0
        assert device["measured_energy"] is None
    assert told()["after"] == (told()["before"], [])


def test_an_interrupted_run_leaves_boards_as_they_were() -> None:
    for state in told()["while"]:
        assert any("'tbf'" in discipline for discipline in state["disciplines"])
    code, output = told()["interrupted"]
    assert code == 130, output
    assert "interrupted before the run was over" in output
    assert told()["after interruption"] == (told()["before"], [])


def test_a_board_that_vanishes_is_named_and_the_others_go_on() -> None:
    code, output = told()["lossy"]
    assert code == 3, output
    assert "on the board b1 was lost: the connection broke; the others go on" in output
    before = told()["before collecting"]
    assert before["summary"]["devices"]["0"]["updates"]["complete"] > 0
    assert "agent-1.jsonl" not in before["events"]
    assert told()["left there"] == []
    code, output = told()["collect"]
    assert code == 3, output
    collected = told()["collected"]
    assert "agent-1.jsonl" in collected["events"]
    reasons = collected["summary"]["invalid_reasons"]
    assert any("on the board b1 was lost" in reason for reason in reasons)
