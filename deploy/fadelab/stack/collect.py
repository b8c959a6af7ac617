"""From the records of all nodes to one run directory, as a run on one machine leaves it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.folders import made
from fadelab.local.launch import write_json
from fadelab.stack.node_record import EMULATOR, SERVER, Event, NodeRecord, number
from fadelab_emulation.achieved import AchievedWriter, encode_rows
from fadelab_proto.events import read_events

_CONDUCTOR = "launcher-0.jsonl"


def collect_run(testbed: Path, folders: Sequence[Path], run_dir: Path) -> list[str]:
    """Make a run directory of what the nodes wrote.

    Of every device's link the node counts at which its agent was; all times are by the clock of
    the server's machine, for which each node has measured the offset of its own.

    Args:
        testbed: what ``fadelab stack`` wrote.
        folders: a copy of each node's /out.
        run_dir: must not exist.

    Returns:
        Sentences about what was found.

    Raises:
        FadelabError: USAGE, if a folder is none, is missing, or of another run.

    """
    manifest = _manifest(testbed)
    run_id, time_scale = str(manifest["run_id"]), _time_scale(manifest)
    nodes = [NodeRecord.load(folder, run_id, time_scale) for folder in folders]
    names = [node.name for node in nodes]
    if len(set(names)) < len(names):
        raise FadelabError(ExitCode.USAGE, f"two folders are of one node: {', '.join(names)}")
    home = next((node for node in nodes if (node.folder / "events" / SERVER).exists()), None)
    if home is None:
        raise FadelabError(
            ExitCode.USAGE,
            f"none of the folders holds events/{SERVER}: that of the server's node is missing",
        )
    homes, problems = _homes(nodes)
    problems += _differences(nodes)
    with made(f"-o {run_dir}", "runs are never overwritten"):
        (run_dir / "events").mkdir(parents=True)
    _write_events(nodes, homes, run_dir / "events")
    _write_achieved(nodes, homes, run_dir / "links.achieved")
    longest = max((node.schedule for node in nodes), key=len)
    (run_dir / "links.schedule").write_bytes(longest)
    if (home.folder / "checkpoints").is_dir():
        shutil.copytree(home.folder / "checkpoints", run_dir / "checkpoints")
    begun = next(iter(read_events(home.folder / "events" / _CONDUCTOR)), None)
    manifest["command_mono_s"] = 0.0 if begun is None else number(begun["mono_s"]) / time_scale
    manifest["nodes"] = {
        node.name: {"devices": _at(homes, node), "clock_offset_s": node.clock_offset_s}
        for node in nodes
    }
    if problems:
        manifest["failure"] = "; ".join(problems)
    write_json(run_dir / "manifest.json", manifest)
    return [
        *(f"{node.name}: devices {_listed(_at(homes, node))}" for node in nodes),
        *problems,
        f"{run_dir}: `fadelab report {run_dir}` gives verdict and report",
    ]


def _manifest(testbed: Path) -> dict[str, object]:
    path = testbed / "manifest.json"
    try:
        found = json.loads(path.read_text())
        _time_scale(found)
        str(found["run_id"])
    except OSError as error:
        raise FadelabError(
            ExitCode.USAGE, f"{testbed} is no folder of `fadelab stack`: {path}: {error.strerror}"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FadelabError(ExitCode.USAGE, f"{path} is damaged: {error}") from None
    assert isinstance(found, dict)
    return found


def _time_scale(manifest: dict[str, object]) -> float:
    experiment = manifest["experiment"]
    if not isinstance(experiment, dict):
        raise TypeError("experiment is no section")
    return float(experiment["radio"]["time_scale"])


def _homes(nodes: Sequence[NodeRecord]) -> tuple[dict[int, NodeRecord], list[str]]:
    """Return where each device's link was, and what is wrong with that."""
    homes: dict[int, NodeRecord] = {}
    problems = []
    for node in nodes:
        for device in node.devices():
            former = homes.get(device)
            if former is not None:
                problems.append(
                    f"device {device} was at two nodes, {former.name} and {node.name}, and what it "
                    "sent at the first is in no account"
                )
                if former.given_at_s(device) > node.given_at_s(device):
                    continue
            homes[device] = node
    return homes, problems


def _differences(nodes: Sequence[NodeRecord]) -> list[str]:
    """Return what is wrong if the nodes' timelines are not one: of two, one continues the other."""
    longest = max(nodes, key=lambda node: len(node.schedule))
    return [
        f"the timelines of {node.name} and {longest.name} differ: versions of Fadelab that differ, "
        "or devices that changed their power, of which other nodes do not hear"
        for node in nodes
        if not longest.schedule.startswith(node.schedule)
    ]


def _write_events(nodes: Sequence[NodeRecord], homes: dict[int, NodeRecord], target: Path) -> None:
    others: dict[str, list[Event]] = {}
    for node in nodes:
        for path in sorted((node.folder / "events").glob("*.jsonl")):
            if path.name != EMULATOR:
                others.setdefault(path.name, []).extend(read_events(path))
    for name, events in others.items():
        _write(target / name, events)
    _write(target / EMULATOR, _emulators(nodes, homes))


def _emulators(nodes: Sequence[NodeRecord], homes: dict[int, NodeRecord]) -> list[Event]:
    """Return the emulators' events as those of one: what is said of a link, its node says."""
    kept: list[Event] = []
    for node in nodes:
        for one in node.events:
            device = one.get("device")
            elsewhere = isinstance(device, int) and homes.get(device, node) is not node
            if not elsewhere and one["event"] not in ("wire", "lateness"):
                kept.append(one)
    # A device that got no link anywhere has an account of nothing at every node: one will do.
    accounted: set[object] = set()
    once = []
    for one in kept:
        if one["event"] == "link_account":
            if one["device"] in accounted:
                continue
            accounted.add(one["device"])
        once.append(one)
    return once + _wire(nodes) + _latest(nodes)


def _wire(nodes: Sequence[NodeRecord]) -> list[Event]:
    """Return the bytes on all links together, at every moment at which a node counted its own."""
    counts = sorted(
        ((node.name, one) for node in nodes for one in node.events if one["event"] == "wire"),
        key=lambda found: number(found[1]["counted_mono_s"]),
    )
    sums: dict[str, tuple[float, float]] = {}
    merged: list[Event] = []
    for name, one in counts:
        sums[name] = (number(one["up_bytes"]), number(one["down_bytes"]))
        up, down = (int(sum(column)) for column in zip(*sums.values(), strict=True))
        merged.append(one | {"up_bytes": up, "down_bytes": down})
    return merged


def _latest(nodes: Sequence[NodeRecord]) -> list[Event]:
    """Return how late ticks were at the node where they were latest."""
    found = [one for node in nodes for one in node.events if one["event"] == "lateness"]
    return sorted(found, key=lambda one: number(one["p99_ms"]))[-1:]


def _write(path: Path, events: list[Event]) -> None:
    events.sort(key=lambda one: number(one["mono_s"]))
    path.write_text("".join(json.dumps(one) + "\n" for one in events))


def _write_achieved(nodes: Sequence[NodeRecord], homes: dict[int, NodeRecord], path: Path) -> None:
    records: list[tuple[float, bytes]] = []
    for node in nodes:
        found, own = node.achieved, _at(homes, node)
        mine = np.isin(found.rows["device"], own)
        if not mine.any():
            continue
        rows_here, ticks = found.rows[mine], found.tick[mine]
        moments, first = np.unique(found.mono_s[mine], return_index=True)
        ends = [*first[1:].tolist(), int(mine.sum())]
        for mono_s, start, end in zip(moments.tolist(), first.tolist(), ends, strict=True):
            rows, tick = rows_here[start:end], int(ticks[start])
            records.append((mono_s, encode_rows(tick, mono_s, rows)))
    records.sort(key=lambda record: record[0])
    writer = AchievedWriter(path)
    for _, record in records:
        writer.append(record)
    writer.close()


def _at(homes: dict[int, NodeRecord], node: NodeRecord) -> list[int]:
    return sorted(device for device, home in homes.items() if home is node)


def _listed(devices: Sequence[int]) -> str:
    return ", ".join(map(str, devices)) or "none"
