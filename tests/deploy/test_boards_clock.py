"""Clock offsets of boards: measured, interpolated, and taken out of their records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fadelab.boards.clock_offset import ClockOffset, Exchange, offset_at, offset_of
from fadelab.boards.collect import Collected, merge, one_emulator
from fadelab.exit_codes import FadelabError
from fadelab_emulation.achieved import ACHIEVED_HEADER, ROW, encode_rows, read_achieved
from fadelab_proto.events import read_events

OFFSET_S = 1000.0


def offset(at_s: float, offset_s: float) -> ClockOffset:
    return ClockOffset(at_s, offset_s, 0.001, 0.0, 1)


@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 10**7)), min_size=1, max_size=30),
    st.integers(-(10**15), 10**15),
)
def test_an_offset_is_wrong_by_no_more_than_it_says(
    ways: list[tuple[int, int]], ahead_ns: int
) -> None:
    exchanges = []
    now = 10**15
    for there, back in ways:
        board_ns = now + there + ahead_ns
        exchanges.append(Exchange(now, now + there + back, board_ns, board_ns, now + there + back))
        now += 10**9
    found = offset_of(exchanges)
    # A nanosecond for the rounding of floats, which hold a day to 15 digits.
    assert abs(found.offset_s - ahead_ns / 1e9) <= found.uncertainty_s + 1e-9
    assert found.uncertainty_s == pytest.approx(min(map(sum, ways)) / 2e9)


def test_offsets_drift_between_measurements_and_stay_outside() -> None:
    at = offset_at([offset(100.0, 5.0), offset(200.0, 6.0)])
    assert [at(t) for t in (0.0, 100.0, 150.0, 200.0, 300.0)] == [5.0, 5.0, 5.5, 6.0, 6.0]
    assert offset_at([offset(100.0, 5.0)])(170.0) == 5.0


def write(path: Path, *events: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events))


def event(role: str, name: str, mono_s: float, **fields: Any) -> dict[str, Any]:
    return {"event": name, "role": role, "id": "0", "mono_s": mono_s, "t_s": 0.0, **fields}


def run_of_two(tmp_path: Path, *, timelines: tuple[bytes, bytes]) -> list[Collected]:
    """Write a run whose second board's clock is 1000 s ahead."""
    (tmp_path / "manifest.json").write_text('{"experiment": {"radio": {"time_scale": 1.0}}}')
    started = event("server", "run_started", 50.0, start_mono_s=50.0)
    write(tmp_path / "events" / "server-0.jsonl", started)
    boards = []
    for device, (ahead_s, timeline) in enumerate(zip((0.0, OFFSET_S), timelines, strict=True)):
        folder = tmp_path / "boards" / f"b{device}"
        link = folder / "link"
        write(
            folder / "events" / f"agent-{device}.jsonl",
            event("agent", "power", 60.0 + ahead_s, at_mono_s=[59.0 + ahead_s, 60.0 + ahead_s]),
        )
        write(
            link / "events" / "emulator-0.jsonl",
            event("emulator", "links_ready", 40.0 + ahead_s),
            event("emulator", "contact_opened", 51.0 + ahead_s, device=0),
            event("emulator", "contact_opened", 51.0 + ahead_s, device=1),
            event("emulator", "wire", 55.0 + device + ahead_s, up_bytes=10, down_bytes=20 + device),
            event("emulator", "link_account", 70.0 + ahead_s, device=device),
            event("emulator", "lateness", 70.0 + ahead_s, p99_ms=1.0 + device),
        )
        (link / "links.schedule").write_bytes(timeline)
        row = np.zeros(1, dtype=ROW)
        row["device"] = device
        records = encode_rows(3, 52.0 + ahead_s + device, row)
        (link / "links.achieved").write_bytes(ACHIEVED_HEADER + records)
        boards.append(Collected(device, folder, (offset(45.0, ahead_s),)))
    return boards


def test_boards_become_one_record_by_this_machines_clock(tmp_path: Path) -> None:
    merge(tmp_path, run_of_two(tmp_path, timelines=(b"abc", b"abcdef")))
    (power,) = read_events(tmp_path / "events" / "agent-1.jsonl")
    assert (power["mono_s"], power["t_s"]) == (60.0, 10.0)
    assert power["at_mono_s"] == [59.0, 60.0]
    events = read_events(tmp_path / "events" / "emulator-0.jsonl")
    times = [(e["event"], e["mono_s"]) for e in events]
    assert times == [
        ("links_ready", 40.0),
        ("contact_opened", 51.0),
        ("contact_opened", 51.0),
        ("wire", 55.0),
        ("wire", 56.0),
        ("link_account", 70.0),
        ("link_account", 70.0),
        ("lateness", 70.0),
    ]
    assert [e["device"] for e in events if e["event"] == "contact_opened"] == [0, 1]
    assert [e["up_bytes"] for e in events if e["event"] == "wire"] == [10, 20]
    assert events[-1]["p99_ms"] == 2.0
    assert (tmp_path / "links.schedule").read_bytes() == b"abcdef"
    achieved = read_achieved(tmp_path / "links.achieved")
    assert achieved.mono_s.tolist() == [52.0, 53.0]
    assert achieved.rows["device"].tolist() == [0, 1]


def test_boards_that_followed_different_timelines_are_told(tmp_path: Path) -> None:
    with pytest.raises(FadelabError, match="b0 followed another timeline"):
        merge(tmp_path, run_of_two(tmp_path, timelines=(b"abX", b"abcdef")))


def test_one_helper_is_one_emulator() -> None:
    events = [event("emulator", "wire", 1.0, up_bytes=1, down_bytes=2)]
    assert one_emulator([(4, events)]) == events
