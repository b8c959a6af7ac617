"""Fetching what boards have written, and making one record of it, by this machine's clock."""

import asyncio
import io
import json
import shlex
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fadelab.boards.clock_offset import ClockOffset, offset_at
from fadelab.boards.ssh import Board
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_emulation.achieved import ACHIEVED_HEADER, Achieved, encode_rows, read_achieved
from fadelab_proto.events import Value, read_events

_KEPT = ("events", "link", "agent.json", "link.yaml")
_PATIENCE_S = 300.0
Event = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Collected:
    """What one board has brought."""

    device: int
    folder: Path
    offsets: tuple[ClockOffset, ...]
    """Of its clock; at least one."""


async def collect_board(board: Board, run: str, folder: Path) -> None:
    """Copy the files of a run into ``folder``, over what is there. Raises BoardError."""
    there = shlex.quote(run)
    kept = " ".join(_KEPT)
    packed = await board.must(
        f"cd {there} && tar --create --file - $(ls -d {kept} 2>/dev/null)", patience_s=_PATIENCE_S
    )
    await asyncio.to_thread(_unpack, packed, folder)


def _unpack(packed: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        # Nothing is believed of the names in an archive that comes from another machine.
        archive.extractall(folder, filter="data")


def collected_before(run_dir: Path, boards: Sequence[str]) -> list[Collected]:
    """Return what a run directory already holds of each board, with the offsets measured then."""
    launcher = run_dir / "events" / "launcher-0.jsonl"
    offsets: dict[int, list[ClockOffset]] = {}
    for event in read_events(launcher) if launcher.exists() else []:
        if event["event"] == "clock_offset":
            device = int(str(event["device"]))
            offsets.setdefault(device, []).append(ClockOffset.of_event(event))
    return [
        Collected(device, run_dir / "boards" / name, tuple(offsets[device]))
        for device, name in enumerate(boards)
        if device in offsets and (run_dir / "boards" / name).is_dir()
    ]


def merge(run_dir: Path, boards: Sequence[Collected]) -> None:
    """Make the boards' files the run's: events, timeline and readings, as if of one machine.

    Times become those of this machine. Of the timeline, which all boards have computed for
    themselves, the longest is taken.

    Raises:
        FadelabError: COMPONENT_FAILED, if boards followed different timelines.

    """
    start_s = _start_mono_s(run_dir)
    helpers: list[tuple[int, list[Event]]] = []
    for board in boards:
        align = _Alignment(offset_at(board.offsets), _time_scale(run_dir), start_s)
        for path in sorted((board.folder / "events").glob("agent-*.jsonl")):
            _write_events(run_dir / "events" / path.name, map(align.event, read_events(path)))
        link = board.folder / "link" / "events" / "emulator-0.jsonl"
        if link.exists():
            helpers.append((board.device, [align.event(event) for event in read_events(link)]))
    if helpers:
        _write_events(run_dir / "events" / "emulator-0.jsonl", one_emulator(helpers))
    _merge_timelines(run_dir, boards)
    _merge_achieved(run_dir, boards)


class _Alignment:
    """From a board's times to this machine's."""

    def __init__(
        self, offset_s: Callable[[float], float], time_scale: float, start_s: float | None
    ) -> None:
        self._offset_s = offset_s
        self._time_scale = time_scale
        self._start_s = start_s

    def mono_s(self, there_s: float) -> float:
        """Return a board's second of the emulation's clock by this machine's."""
        wall_s = there_s / self._time_scale
        # The offset's own drift over the offset is far below what can be measured.
        return self._time_scale * (wall_s - self._offset_s(wall_s - self._offset_s(wall_s)))

    def event(self, event: Event) -> Event:
        """Return an event with all its times by this machine's clock."""
        moved = dict(event)
        for key, value in event.items():
            if not key.endswith("mono_s"):
                continue
            if isinstance(value, int | float):
                moved[key] = round(self.mono_s(value), 6)
            elif isinstance(value, list):
                moved[key] = [round(self.mono_s(float(each)), 6) for each in value]
        if event.get("t_s") is not None and self._start_s is not None:
            moved["t_s"] = round(float(str(moved["mono_s"])) - self._start_s, 6)
        return moved


_OF_ALL = ("links_ready", "connections_unseen")
"""Events that every link helper writes alike: one is enough."""


def one_emulator(helpers: Sequence[tuple[int, list[Event]]]) -> list[Event]:
    """Return the events of all link helpers as one emulator would have written them.

    Each helper tells of contacts of all devices, which it computes, too; only its own count. Bytes
    on the wire are added up, and of lateness the worst is told.
    """
    first, carried = helpers[0][0], dict.fromkeys((device for device, _ in helpers), (0, 0))
    tagged = sorted(
        ((device, event) for device, events in helpers for event in events),
        key=lambda pair: float(str(pair[1]["mono_s"])),
    )
    found: list[Event] = []
    lateness: list[Event] = []
    for device, event in tagged:
        name = event["event"]
        if event.get("device", device) != device or (name in _OF_ALL and device != first):
            continue
        if name == "lateness":
            lateness.append(event)
            continue
        if name == "wire":
            carried[device] = int(str(event["up_bytes"])), int(str(event["down_bytes"]))
            up, down = (sum(counts) for counts in zip(*carried.values(), strict=True))
            event = {**event, "up_bytes": up, "down_bytes": down}  # noqa: PLW2901
        found.append(event)
    if lateness:
        found.append(max(lateness, key=lambda event: float(str(event["p99_ms"]))))
    return found


def _merge_timelines(run_dir: Path, boards: Sequence[Collected]) -> None:
    """Take the longest; the others must be beginnings of it, byte for byte."""
    found = {
        board.folder.name: path.read_bytes()
        for board in boards
        if (path := board.folder / "link" / "links.schedule").exists()
    }
    if not found:
        return
    longest = max(found.values(), key=len)
    odd = [name for name, timeline in found.items() if not longest.startswith(timeline)]
    (run_dir / "links.schedule").write_bytes(longest)
    if odd:
        raise FadelabError(
            ExitCode.COMPONENT_FAILED,
            f"{', '.join(odd)} followed another timeline than the others: is the same version of "
            "Fadelab and numpy on all boards?",
        )


def _merge_achieved(run_dir: Path, boards: Sequence[Collected]) -> None:
    time_scale = _time_scale(run_dir)
    records: list[tuple[float, bytes]] = []
    for board in boards:
        path = board.folder / "link" / "links.achieved"
        if path.exists():
            align = _Alignment(offset_at(board.offsets), time_scale, None)
            records += _records(read_achieved(path), align)
    if records:
        records.sort(key=lambda record: record[0])
        packed = b"".join(record for _, record in records)
        (run_dir / "links.achieved").write_bytes(ACHIEVED_HEADER + packed)


def _records(achieved: Achieved, align: _Alignment) -> list[tuple[float, bytes]]:
    found = []
    for index, there_s, row in zip(
        achieved.tick.tolist(), achieved.mono_s.tolist(), achieved.rows, strict=True
    ):
        mono_s = align.mono_s(there_s)
        found.append((mono_s, encode_rows(index, mono_s, row.reshape(1))))
    return found


def _write_events(path: Path, events: "Sequence[Event] | map[Event]") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events), encoding="utf-8")


def _start_mono_s(run_dir: Path) -> float | None:
    path = run_dir / "events" / "server-0.jsonl"
    for event in read_events(path) if path.exists() else []:
        if event["event"] == "run_started":
            return float(str(event["start_mono_s"]))
    return None


def _time_scale(run_dir: Path) -> float:
    manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    return float(manifest["experiment"]["radio"]["time_scale"])
