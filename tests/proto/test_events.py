from pathlib import Path

import pytest

from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events


@pytest.mark.parametrize("torn", ["", '{"event": "half', '{"event": "' + 2000 * "x"])
def test_a_process_goes_on_behind_the_whole_lines_of_one_that_was_killed(
    tmp_path: Path, torn: str
) -> None:
    path = tmp_path / "agent-0.jsonl"
    with EventLog(tmp_path, "agent", "0", SystemClock()) as log:
        log.write("first", number=1)
    with path.open("a") as file:
        file.write(torn)
    with EventLog(tmp_path, "agent", "0", SystemClock()) as log:
        log.write("second", number=2)
    events = read_events(path)
    assert [(event["event"], event["number"]) for event in events] == [("first", 1), ("second", 2)]


def test_a_file_of_one_torn_line_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "agent-0.jsonl").write_text('{"ev')
    with EventLog(tmp_path, "agent", "0", SystemClock()) as log:
        log.write("first")
    assert [event["event"] for event in read_events(tmp_path / "agent-0.jsonl")] == ["first"]
