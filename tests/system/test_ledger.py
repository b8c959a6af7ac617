"""The byte ledger of a whole run adds up to the interface counters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.system.commands import Ended
from tests.system.conftest import ShortRun

Run = Callable[..., Ended]

# Resets, ICMP and options of selective acknowledgements belong to no row, and what crosses between
# two readings at the end to one of them: a few frames, which count on a link that carried little.
FEW_FRAMES_BYTES = 1_000


def parts(direction: dict[str, Any]) -> int:
    explained = (
        "payload",
        "packet_headers",
        "framing",
        "undelivered",
        "retransmitted",
        "ip_headers",
        "ethernet",
        "probes",
    )
    return (
        sum(direction[name] for name in explained) - direction["waiting"] - direction["overflowed"]
    )


def test_the_ledger_adds_up_to_the_interface_counters_within_one_per_cent(
    short_run: ShortRun,
) -> None:
    summary: dict[str, Any] = short_run.ended.summary
    said = []
    for name, device in summary["devices"].items():
        for way in ("up", "down"):
            found = device["bytes"][way]
            residual = found["wire"] - parts(found)
            said.append(
                f"device {name} {way}: {parts(found)} of {found['wire']} bytes explained, "
                f"residual {residual}"
            )
            assert residual == found["residual"], said[-1]
            assert abs(residual) <= max(0.01 * found["wire"], FEW_FRAMES_BYTES), said[-1]
            assert abs(found["wire"] - found["device_end"]) <= FEW_FRAMES_BYTES, said[-1]
            assert found["framing"] > 0, said[-1]
        assert device["bytes"]["connections"] >= 1
    for way in ("up", "down"):
        total = summary["total"]["bytes"][way]
        assert total["payload"] > 100_000, said
        assert abs(total["wire"] - parts(total)) <= 0.01 * total["wire"], said


WHOLE_UPDATES = """
name: overhead
duration_s: 60
max_versions: 5
devices: {count: 1}
task: {name: digits, model: {kind: mlp, hidden: 512}}
partition: {kind: iid}
training: {local_steps: 1, batch_size: 32, learning_rate: 0.5}
method: {name: fedavg, upload: {kind: dense}}
radio:
  mobility: {kind: static, placement: {kind: uniform}}
  rate: {kind: fixed, rate_up_bps: 4.0e+6, rate_down_bps: 4.0e+6}
"""
MOST_OVERHEAD = 0.07
"""Of IP packets both ways, acknowledgements included, beyond the payload. Headers of full segments
are 3.6 %, an acknowledgement for every two of them 1.8 %, packet headers 0.3 %."""


def test_updates_of_150_kb_cost_little_more_than_tcp_takes(run: Run, tmp_path: Path) -> None:
    experiment = tmp_path / "overhead.yaml"
    experiment.write_text(WHOLE_UPDATES)
    summary: dict[str, Any] = run("overhead", experiment=experiment).summary
    ways = [summary["total"]["bytes"][way] for way in ("up", "down")]
    payload = sum(way["payload"] for way in ways)
    packets = sum(way["wire"] - way["ethernet"] for way in ways)
    assert payload == 2 * 5 * 4 * 38_410
    assert packets / payload - 1 <= MOST_OVERHEAD, ways


def test_packets_by_device_and_by_version_are_those_of_the_ledger(short_run: ShortRun) -> None:
    summary: dict[str, Any] = short_run.ended.summary
    for way in ("up", "down"):
        total = summary["total"]["bytes"][way]
        of_devices = [
            row
            for device in summary["devices"].values()
            for row in device["packets"]
            if row["direction"] == way
        ]
        of_versions = [
            row
            for task in summary["tasks"].values()
            for row in task["rounds"]
            if row["direction"] == way
        ]
        for rows in (of_devices, of_versions):
            assert sum(row["payload"] for row in rows) == total["payload"] > 0
            assert sum(row["headers"] for row in rows) == total["packet_headers"]
