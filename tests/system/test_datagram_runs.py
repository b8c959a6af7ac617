"""Whole runs whose updates travel as datagrams, or class by class in streams of their own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from scipy import stats
from tests.system.commands import Ended
from tests.system.test_ledger import FEW_FRAMES_BYTES, parts

from fadelab.experiment import Experiment
from fadelab.local.plan import LinksOfRun, LocalPlan
from fadelab.local.trial import attempt
from fadelab_emulation.backends.choice import Need, Variant
from fadelab_emulation.window import WindowMode
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog, read_events
from fadelab_server import checkpoint
from fadelab_server.federation import Federation
from fadelab_server.journal import replay
from fadelab_server.journal.records import Kind, intact
from fadelab_server.replaying import Replay

Run = Callable[..., Ended]
LOSS = 0.05
CONFIDENCE = 0.999
DATAGRAMS = {"kind": "datagrams"}
CLASS = {"name": "update", "dscp": 10, "rate_share_up": 0.8, "rate_share_down": 0.1}


def experiment(folder: Path, **changes: Any) -> Path:
    """Write an experiment in which one device sends some 800 packets at 4 Mbit/s."""
    found: dict[str, Any] = {
        "name": "datagrams",
        "duration_s": 6,
        "devices": {"count": 1},
        "task": {"name": "digits", "model": {"kind": "mlp", "hidden": 512}},
        "partition": {"kind": "iid"},
        "training": {"local_steps": 5, "batch_size": 16, "learning_rate": 0.5},
        "method": {
            "name": "fedasync",
            "alpha": 0.4,
            "cut_updates": "keep",
            "upload": {"kind": "codec", "codec": {"kind": "uniform", "bits": 16}},
        },
        "transport": {"classes": {"update": DATAGRAMS}},
        "radio": {
            "mobility": {"kind": "static", "placement": {"kind": "uniform"}},
            "rate": {"kind": "fixed", "rate_up_bps": 4e6, "rate_down_bps": 20e6},
        },
    }
    for section, values in changes.items():
        found[section] |= values
    path = folder / "datagrams.yaml"
    path.write_text(yaml.safe_dump(found))
    return path


def events(ended: Ended, process: str, name: str) -> list[dict[str, Any]]:
    found = read_events(ended.run_dir / "events" / f"{process}.jsonl")
    return [dict(event) for event in found if event["event"] == name]


def total(found: list[dict[str, Any]], field: str) -> int:
    return sum(event[field] for event in found)


def interval(count: int, of: int) -> tuple[float, float]:
    """Return the exact binomial confidence interval (Clopper and Pearson 1934) of a share."""
    found = stats.binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return found.low, found.high


def journalled(ended: Ended) -> Iterator[Kind]:
    for record in replay(ended.run_dir / "checkpoints" / "journal", intact):
        yield record.kind


def recomputed(ended: Ended, folder: Path) -> Any:
    """Return the newest model by the server's journal alone, from the model of version 0."""
    manifest = json.loads((ended.run_dir / "manifest.json").read_text())
    initial = ended.run_dir / "checkpoints" / "digits-initial.npy"
    plan = LocalPlan(
        experiment=Experiment.model_validate(manifest["experiment"]),
        run_dir=ended.run_dir,
        sockets_dir=folder,
        data_dir=folder,
        run_id=0,
        command_mono_s=0.0,
        links=cast("LinksOfRun", None),
    )
    config = plan.server(dimension=len(np.load(initial)), layout_hash=0)
    with EventLog(folder / "again", "server", "0", SystemClock()) as log:
        federation = Federation(config, SystemClock(), log)
        keeper = federation.keeper
        again = Replay(config, federation.tasks, keeper.read, book=keeper.book, decided_until=0)
        for record in replay(config.checkpoint_dir / "journal", intact):
            again.take(record)
    return federation.tasks[0].store.newest


def check_received_share(ended: Ended, *, link_class: str | None) -> None:
    """Hold the received share against what the link counted, and against the programmed loss."""
    sent = total(events(ended, "agent-0", "upload_ended"), "datagram_packets")
    (flow,) = events(ended, "server-0", "datagrams_received")
    received = flow["packets"]
    (account,) = events(ended, "emulator-0", "link_account")
    offered = account["up_arrived_packets"]
    if link_class is not None:
        # Only this class loses packets, so all that were lost are its own.
        offered = account["up_class_packets"][account["classes"].index(link_class)]
        assert offered == sent == account["up_datagrams"]
    assert sent > 300
    assert (flow["packet_class"], flow["overrun_packets"]) == ("update", 0)
    (counts,) = events(ended, "server-0", "datagram_receiver")
    assert counts["socket_drops"] == counts["damaged_packets"] == counts["unknown_packets"] == 0
    low, high = interval(account["up_lost_packets"], offered)
    assert low <= 1 - received / sent <= high
    low, high = interval(sent - received, sent)
    assert low <= LOSS <= high


def check_ledger(ended: Ended) -> None:
    summary: dict[str, Any] = ended.summary
    for way in ("up", "down"):
        found = summary["devices"]["0"]["bytes"][way]
        residual = found["wire"] - parts(found)
        assert abs(residual) <= max(0.01 * found["wire"], FEW_FRAMES_BYTES), found
    up = summary["devices"]["0"]["bytes"]["up"]
    assert up["undelivered"] > 0.01 * up["payload"]
    # Control alone: announcements, questions, last words and directives.
    assert up["framing"] < 0.02 * up["payload"]


def check_aggregate(ended: Ended, folder: Path) -> None:
    kinds = list(journalled(ended))
    updates = events(ended, "server-0", "upload_complete")
    assert kinds.count(Kind.APPLIED) == len(updates) >= 5
    assert kinds.count(Kind.PACKET) >= total(updates, "packets")
    assert any(update["packets"] < update["packets_announced"] for update in updates)
    newest = recomputed(ended, folder)
    meta, arrays = checkpoint.load(ended.run_dir / "checkpoints")
    (task,) = cast("list[dict[str, Any]]", meta["tasks"])
    assert newest.number == max(task["versions"]) >= 5
    assert newest.vector.tobytes() == arrays[f"0.vector.{newest.number}"].tobytes()


def test_the_received_share_is_the_links_and_the_aggregate_that_of_the_journal(
    run: Run, tmp_path: Path
) -> None:
    lossy = {"classes": [{**CLASS, "packet_loss_up": LOSS}]}
    ended = run("lite", experiment=experiment(tmp_path, radio=lossy))
    assert ended.code in (0, 3), ended.output
    check_received_share(ended, link_class="update")
    check_ledger(ended)
    check_aggregate(ended, tmp_path)


def test_the_same_over_the_relay_which_loses_what_control_sends_as_well(
    run: Run, tmp_path: Path
) -> None:
    problem = attempt(Variant.RELAY, frozenset({Need.LOSS}), WindowMode.HOLD)
    if problem:
        pytest.skip(f"no relay here: {problem}")
    lossy = {"backend": "relay", "packet_loss_up": LOSS}
    ended = run("relay", experiment=experiment(tmp_path, radio=lossy))
    assert ended.code in (0, 3), ended.output
    check_received_share(ended, link_class=None)
    check_ledger(ended)
    check_aggregate(ended, tmp_path)


def test_with_selective_repeat_everything_arrives_in_the_end(run: Run, tmp_path: Path) -> None:
    lossy = {"classes": [{**CLASS, "packet_loss_up": 0.2}]}
    routes = {"classes": {"update": {**DATAGRAMS, "repeats": 30}}}
    path = experiment(tmp_path, radio=lossy, transport=routes, method={"cut_updates": "resume"})
    ended = run("repeat", "duration_s=5", experiment=path)
    assert ended.code in (0, 3), ended.output
    updates = events(ended, "server-0", "upload_complete")
    assert len(updates) >= 5
    assert all(update["packets"] == update["packets_announced"] for update in updates)
    assert not events(ended, "server-0", "upload_refused")
    sent = events(ended, "agent-0", "upload_ended")
    (account,) = events(ended, "emulator-0", "link_account")
    repeats = total(sent, "datagram_repeats")
    # What was lost was repeated, but for what the end of the run left to do; and little besides:
    # only what came later than the server was asked.
    still_missing = max(update["packets"] for update in updates)
    assert account["up_lost_packets"] - still_missing <= repeats
    duplicates = total(updates, "duplicates")
    assert repeats <= account["up_lost_packets"] + duplicates + still_missing
    check_ledger(ended)


def test_each_class_of_a_link_carries_the_stream_with_its_mark(run: Run, tmp_path: Path) -> None:
    codec = {"upload": {"kind": "codec", "codec": {"kind": "sign_modulus", "bits": 8}}}
    classes = [
        {"name": "sign", "dscp": 46, "rate_share_up": 0.3, "rate_share_down": 0.1},
        {"name": "modulus", "dscp": 10, "rate_share_up": 0.5, "rate_share_down": 0.1},
    ]
    routes = {name: {"kind": "stream"} for name in ("sign", "modulus")}
    path = experiment(
        tmp_path, method=codec, radio={"classes": classes}, transport={"classes": routes}
    )
    ended = run("streams", "duration_s=4", experiment=path)
    assert ended.code in (0, 3), ended.output
    updates = events(ended, "server-0", "upload_complete")
    assert len(updates) >= 5
    payload: dict[str, int] = {"sign": 0, "modulus": 0}
    for update in updates:
        assert update["classes"] == ["sign", "modulus"]
        for name, size in zip(update["classes"], update["class_payload_bytes"], strict=True):
            payload[name] += size
    summary: dict[str, Any] = ended.summary
    carried = {one["name"]: one["bytes"] for one in summary["devices"]["0"]["up"]["classes"]}
    assert sum(carried.values()) == summary["devices"]["0"]["bytes"]["up"]["wire"]
    unfinished = max(update["payload_bytes"] for update in updates)
    for name, size in payload.items():
        # Headers of packets, gRPC, TCP, IP and Ethernet, and acknowledgements of what comes down.
        assert size <= carried[name] <= 1.12 * size + unfinished + 20_000, (name, payload, carried)
    assert carried["default"] < 0.5 * carried["modulus"]
    assert payload["modulus"] > 5 * payload["sign"]
