"""What runs on a board under the script that travels over SSH."""

import json
import subprocess
import sys
from pathlib import Path

from fadelab.boards.facts import SCRIPT, BoardFacts


def script(*arguments: str) -> "subprocess.Popen[str]":
    """Start the script as SSH would."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.read_text(), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_kept_command_tells_how_it_ended() -> None:
    process = script("keep", "exit 7")
    assert process.stdout is not None
    # Its input stays open until it has answered.
    assert process.stdout.readline() == "ended 7\n"
    process.communicate(timeout=20)


def test_a_command_that_nobody_asks_for_any_more_is_ended() -> None:
    process = script("keep", "echo begun; exec sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    # Closing its input is what a broken connection does.
    assert process.communicate(timeout=20)[0] == "ended -15\n"


def test_what_ends_a_unit_is_asked_to(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    begin = f"trap 'kill $!; exit 3' USR1; sleep 600 & echo $$ > {file}; echo begun; wait"
    process = script("keep", begin, f"kill -USR1 $(cat {file})")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert process.communicate(timeout=20)[0] == "ended 3\n"


def test_facts_can_be_had_of_any_machine() -> None:
    output, _ = script("facts", "no/such/folder", "lo").communicate(timeout=20)
    facts = BoardFacts.model_validate(json.loads(output))
    assert facts.interface is not None
    assert facts.interface.address == "127.0.0.1"
    assert not facts.installed
    assert facts.folder.endswith("/no/such/folder")


def test_time_is_told_line_by_line() -> None:
    output, _ = script("clock").communicate("\n\n", timeout=20)
    (mono, wall), (later, _) = (map(int, line.split()) for line in output.splitlines())
    assert 0 < mono <= later
    assert wall > mono
