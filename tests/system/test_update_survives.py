"""One update over a link with contact windows, its agent killed with -9 and its address changed."""

import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.system.commands import ROOT, fadelab

from fadelab_agent.config import IidPartition, MlpModel, TaskConfig, TrainingConfig
from fadelab_agent.workbench import Workbench
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_proto.events import read_events
from fadelab_proto.packet import HEADER_BYTES

SCENE = (sys.executable, "-m", "tests.system.survival_scene")
RATE_BPS = 2e6
PAYLOAD_BYTES = 8192
"""Each packet takes 33 ms: what a kill may cost at most, as far as it is the link's."""
FRAMING_BYTES = 9 + 5 + 4
"""Of a packet: the heads of an HTTP/2 frame (RFC 9113, section 4.1), of a gRPC message and of a
protobuf field."""
CONTROL_BYTES = 4096
"""More than a connection takes to be opened, to join, and to announce an update."""
KILLS = 3


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of the update."""

    update_bytes: int
    """Payloads and packet headers."""
    packets: int
    beyond_bytes: int
    """What the device's connections carried besides, each byte counted once."""
    retransmitted_bytes: int
    """What TCP sent again by itself."""
    duplicates: int
    """Packets that arrived more than once."""
    connections: int
    seconds: float

    @property
    def repeated_share(self) -> float:
        """At most this share of the update was sent more than once; joining is counted in."""
        return (self.beyond_bytes - FRAMING_BYTES * self.packets) / self.update_bytes


def prepare(folder: Path, hidden: int) -> None:
    """Write what server and agent read."""
    work = WorkbenchConfig(
        task=TaskConfig(model=MlpModel(hidden=hidden)),
        partition=IidPartition(),
        training=TrainingConfig(local_steps=1, batch_size=8, learning_rate=0.1),
        devices=1,
        seed=1,
    )
    bench = Workbench(work)
    np.save(folder / "initial.npy", bench.initial, allow_pickle=False)
    task = {
        "name": "digits",
        "dimension": len(bench.initial),
        "layout_hash": bench.layout_hash,
        "initial": str(folder / "initial.npy"),
    }
    both = {"run_id": 1, "events_dir": str(folder / "events"), "max_payload_bytes": PAYLOAD_BYTES}
    server = both | {
        "listen": "10.77.0.1:50051",
        "operator_socket": str(folder / "operator"),
        "checkpoint_dir": str(folder / "checkpoints"),
        "devices": 1,
        "tasks": [task],
        "aggregation": {"kind": "fedasync"},
        "stop": {"duration_s": 3600, "max_versions": 1},
    }
    agent = both | {
        "device": 0,
        "server": "10.77.0.1:50051",
        "state_dir": str(folder / "state"),
        "policy": {"kind": "dense"},
        "radio": {"kind": "none", "rate_up_bps": RATE_BPS},
    }
    (folder / "server.json").write_text(json.dumps(server))
    file = {"agent": agent, "work": work.model_dump(mode="json")}
    (folder / "agent.json").write_text(json.dumps(file))


def outages(open_s: float, closed_s: float, until_s: float) -> list[str]:
    """Return the options that close the link after each contact window."""
    starts = itertools.takewhile(
        lambda at_s: at_s < until_s, itertools.count(open_s, open_s + closed_s)
    )
    return [x for at_s in starts for x in ("--outage", f"{at_s:g}:{at_s + closed_s:g}")]


def play(folder: Path, *, hidden: int, open_s: float, closed_s: float, most_s: float) -> Figures:
    """Send one dense update, and kill its agents; return what it took."""
    prepare(folder, hidden)
    rates = ("--rate-up", f"{RATE_BPS:g}", "--rate-down", "20e6")
    server = (*SCENE, "server", str(folder))
    device = (*SCENE, "device", str(folder), str(open_s), str(closed_s))
    done = subprocess.run(
        fadelab(
            *("link", "run", *rates, *outages(open_s, closed_s, most_s)),
            *("--server", " ".join(server), "--server-port", "50051", "--", *device),
        ),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=most_s,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert (seen["killed"], seen["exit_code"]) == (KILLS, 0), done.stderr
    events = read_events(folder / "events" / "server-0.jsonl")
    (taken,) = [event for event in events if event["event"] == "upload_complete"]
    lives = read_events(folder / "events" / "agent-0.jsonl")
    assert sum(event["event"] == "update_resumed" for event in lives) == KILLS
    assert sum(event["event"] == "trained" for event in lives) == 1
    packets, payload_bytes = int(str(taken["packets"])), int(str(taken["payload_bytes"]))
    update_bytes = payload_bytes + HEADER_BYTES * packets
    return Figures(
        update_bytes=update_bytes,
        packets=packets,
        beyond_bytes=seen["tcp_bytes_once"] - update_bytes,
        retransmitted_bytes=seen["tcp_bytes_retransmitted"],
        duplicates=int(str(taken["duplicates"])),
        connections=seen["connections"],
        seconds=float(str(taken["last_mono_s"])) - float(str(taken["started_mono_s"])),
    )


def test_an_update_survives_kills_and_a_change_of_address(tmp_path: Path) -> None:
    figures = play(tmp_path, hidden=2222, open_s=1, closed_s=1, most_s=60)
    # What had left the killed agents for the kernel arrives; at most one packet of it is torn,
    # and as many as fit into the kernel's buffer might come twice.
    torn = KILLS * (PAYLOAD_BYTES + HEADER_BYTES + FRAMING_BYTES)
    control = CONTROL_BYTES * figures.connections
    twice = figures.duplicates * (PAYLOAD_BYTES + HEADER_BYTES + FRAMING_BYTES)
    allowed = FRAMING_BYTES * figures.packets + control + torn + twice
    assert 0 < figures.beyond_bytes < allowed, figures
    assert figures.duplicates <= 4 * KILLS, figures


@pytest.mark.endurance
@pytest.mark.timeout(400)
def test_four_megabytes_survive_with_less_than_one_per_cent_repeated(tmp_path: Path) -> None:
    figures = play(tmp_path, hidden=13333, open_s=3, closed_s=7, most_s=300)
    sys.stdout.write(f"{figures}; repeated at most {figures.repeated_share:.2%}\n")
    assert figures.update_bytes > 4_000_000
    assert figures.repeated_share < 0.01, figures
