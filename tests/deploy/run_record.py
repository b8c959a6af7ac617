"""A small finished run's record, written by hand with the writers that real runs use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fadelab.experiment import Experiment
from fadelab_emulation.achieved import AchievedWriter, encode_sample
from fadelab_emulation.backends.base import DirectionSample, LinkSample
from fadelab_emulation.link_state import plain_tick
from fadelab_emulation.schedule import ScheduleWriter
from fadelab_proto.events import EventLog

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
COMMAND_S = 100.0
START_S = 103.0
DEVICES = 2
RATE_UP_BPS, RATE_DOWN_BPS = 1e6, 2e6
TICK_S = 0.5
OPEN = [[1, 1], [1, 0], [0, 0], [1, 0], [1, 1], [1, 1], [1, 1], [1, 1]]
"""For each tick, whether device 0 and device 1 are in contact; the run ends after tick 5."""


def radio(**changes: Any) -> dict[str, Any]:
    """Return the radio section of the experiment with some settings changed."""
    section: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())["radio"]
    return section | {"tick_s": TICK_S} | changes


class HandClock:
    """Shows the time that a test set."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s

    async def sleep_until(self, when_s: float) -> None:
        raise AssertionError("nothing waits here")


class RunWriter:
    """Writes a run directory; times are emulated seconds unless named otherwise."""

    def __init__(self, folder: Path, **experiment: Any) -> None:
        self.folder = folder
        tree = yaml.safe_load(QUICKSTART.read_text())
        tree["devices"]["count"] = DEVICES
        tree["radio"]["tick_s"] = TICK_S
        checked = Experiment.model_validate(tree | experiment)
        manifest = {
            "experiment": checked.model_dump(mode="json"),
            "command_mono_s": COMMAND_S,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def write(self, process: str, t_s: float, event: str, /, **fields: Any) -> None:
        role, _, identity = process.partition("-")
        clock = HandClock()
        clock.time_s = START_S + t_s
        with EventLog(self.folder / "events", role, identity or "0", clock) as log:
            log.write(event, **fields)

    def fail(self, reason: str) -> None:
        """Note a failure as the launcher does."""
        path = self.folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"failure": reason}))

    def schedule(self) -> None:
        with ScheduleWriter(self.folder / "links.schedule", DEVICES, TICK_S, 2) as writer:
            for index, is_open in enumerate(OPEN):
                tick = plain_tick(
                    np.full(DEVICES, RATE_UP_BPS),
                    np.full(DEVICES, RATE_DOWN_BPS),
                    index=index,
                    t_s=TICK_S * index,
                    is_open=np.array(is_open, dtype=np.bool_),
                )
                writer.write(tick)

    def phase(self, name: str, since_command_s: float) -> None:
        t_s = COMMAND_S + since_command_s - START_S
        self.write("launcher", t_s, "phase", name=name, since_command_s=since_command_s)

    def upload(self, event: str, t_s: float, device: int, **fields: Any) -> None:
        usual: dict[str, Any] = {
            "device": device,
            "task": "digits",
            "base_version": 0,
            "packets": 4,
            "payload_bytes": 40_000,
            "mark_mono_s": None,
            "last_mono_s": None,
            "bytes_after_mark": 0,
            "staleness_versions": None,
            "staleness_s": None,
        }
        self.write("server", t_s, event, **usual | fields)

    def account(self, device: int, **fields: Any) -> None:
        usual: dict[str, Any] = {
            f"{direction}_{name}": 0
            for direction in ("up", "down")
            for name in (
                "wire_bytes",
                "wire_packets",
                "programmed_bytes",
                "achieved_bytes",
                "stretches",
                "leaked_packets",
            )
        }
        self.write("emulator", 3.1, "link_account", device=device, **usual | fields)

    def ready(self, **fields: Any) -> None:
        usual: dict[str, Any] = {
            "backend": "lite",
            "variant": "lite/cbpf",
            "why": "the cheapest that this machine has for rates and contact windows",
            "passed_over": [],
            "loss_is_seeded": False,
            "window": "hold",
            "devices": DEVICES,
        }
        self.write("emulator", -1.5, "links_ready", **usual | fields)

    def calibrated(self, **fields: Any) -> None:
        usual: dict[str, Any] = {
            "device": 0,
            "direction": "up",
            "programmed_bps": RATE_UP_BPS,
            "achieved_bps": 1.001 * RATE_UP_BPS,
            "programmed_delay_s": 0.0,
            "achieved_delay_s": 0.0001,
            "transmission_s": 0.0005,
        }
        self.write("emulator", -1.4, "calibrated", **usual | fields)

    def delay_probe(self, device: int, tick: int, **fields: Any) -> None:
        usual: dict[str, Any] = {
            "direction": "up",
            "programmed_s": 0.05,
            "jitter_s": 0.0,
            "achieved_s": 0.0502,
            "transmission_s": 0.0005,
        }
        t_s = TICK_S * tick
        self.write("emulator", t_s, "delay_probe", device=device, tick=tick, **usual | fields)

    def achieved(self, up: dict[str, list[list[int]]], *, late_s: float = 0.0) -> None:
        """Write a reading at each tick: uplink counts by name, ``[tick][device]``; downlinks 0."""
        writer = AchievedWriter(self.folder / "links.achieved")
        ticks = len(next(iter(up.values())))
        zeros = np.zeros(DEVICES, dtype=np.int64)
        names = ("sent_bytes", "backlog_bytes", "through_packets", "arrived_packets")
        for tick in range(ticks):
            counts = {
                name: np.array(up[name][tick], dtype=np.int64) if name in up else zeros
                for name in (*names, "lost_packets")
            }
            sample = LinkSample(
                np.arange(DEVICES),
                up=DirectionSample(**counts),
                down=DirectionSample(*[zeros] * len(counts)),
            )
            mono_s = START_S + TICK_S * tick + late_s
            writer.append(encode_sample(tick, mono_s, sample))
        writer.close()

    def lateness(self, **fields: Any) -> None:
        usual = {"ticks": 8, "p50_ms": 0.2, "p99_ms": 1.5, "max_ms": 2.5}
        self.write("emulator", 3.1, "lateness", **usual | fields)


def write_whole_run(run: RunWriter) -> None:
    """Write a valid run of 3 s: device 0 completes two updates, device 1 leaves one behind."""
    run.schedule()
    write_start(run)
    write_device_0(run)
    write_device_1(run)
    write_end(run)


def write_start(run: RunWriter) -> None:
    run.phase("links_ready", 1.25)
    run.phase("agents_forked", 1.5)
    for device in range(DEVICES):
        run.write(f"agent-{device}", -1.0 + 0.5 * device, "joined")
    run.phase("all_joined", 2.5)
    run.write("server", 0.0, "run_started", start_mono_s=START_S)


def write_device_0(run: RunWriter) -> None:
    run.write(
        "agent-0",
        0.4,
        "model_received",
        task="digits",
        version=0,
        packets=7,
        payload_bytes=100_000,
        mark_mono_s=START_S + 0.2,
        last_mono_s=START_S + 0.4,
        bytes_after_mark=45_000,
        downlink_j=0.4,
    )
    for number in range(2):
        run.write("agent-0", 0.5 + number, "trained", compute_j=1.5)
        run.write("agent-0", 0.5 + number, "plan", task="digits")
        run.write("agent-0", 1.8 + number, "upload_ended", uplink_j=0.25)
    # From 0.75 s to 1.75 s the link is open for half a second: 62 500 bytes fit.
    run.upload(
        "upload_complete",
        1.75,
        0,
        mark_mono_s=START_S + 0.75,
        last_mono_s=START_S + 1.75,
        bytes_after_mark=60_000,
        staleness_versions=0,
        staleness_s=1.0,
    )
    run.upload("upload_complete", 2.75, 0, staleness_versions=1, staleness_s=1.25)
    run.write("emulator", 1.52, "resumed", device=0, opened_mono_s=START_S + 1.5, resume_s=0.0125)
    run.write("agent-0", 3.05, "agent_stopped", private_mib=6.0)
    run.account(
        0,
        connections=3,
        connections_missed=0,
        up_tcp_bytes=84_000,
        up_tcp_retransmitted_bytes=3_000,
        up_tcp_segments=60,
        up_tcp_header_bytes=60 * 52,
        up_waiting_bytes=60,
        up_wire_bytes=90_000,
        up_device_end_bytes=90_000,
        down_tcp_bytes=105_500,
        down_tcp_retransmitted_bytes=4_000,
        down_tcp_segments=80,
        down_tcp_header_bytes=80 * 52,
        down_wire_bytes=110_000,
        down_device_end_bytes=110_000,
        up_programmed_bytes=80_000.0,
        up_achieved_bytes=79_000,
        up_stretches=1,
    )


def write_device_1(run: RunWriter) -> None:
    run.write("agent-1", 0.5, "trained", compute_j=2.0)
    for number in range(3):
        run.write("agent-1", 0.6 + number, "plan", task="digits")
    run.upload("upload_partial", 3.0, 1, packets=2, payload_bytes=20_000)
    run.upload("upload_abandoned", 2.0, 1, packets=0, payload_bytes=0)
    run.write("agent-1", 3.05, "agent_stopped", private_mib=None)
    run.account(1, up_wire_bytes=25_000, down_wire_bytes=1_000)


def write_end(run: RunWriter) -> None:
    for version, t_s in ((1, 1.8), (2, 2.8)):
        published_s = START_S + t_s
        run.write(
            "server",
            t_s,
            "version_published",
            task="digits",
            version=version,
            published_mono_s=published_s,
        )
    for version, metric, loss in ((0, 0.1, 2.3), (2, 0.6, 1.0), (1, 0.7, 0.9)):
        write_validation(run, version, metric, loss)
    for t_s, up_bytes in ((0.0, 5_000), (1.0, 10_000), (2.0, 60_000), (3.0, 115_000)):
        counted = {"counted_mono_s": START_S + t_s, "up_bytes": up_bytes, "down_bytes": 0}
        run.write("emulator", t_s, "wire", **counted)
    run.write("server", 3.0, "run_stopped", reason="the duration of 3 s is over")
    run.write("server", 3.2, "server_drained")
    run.lateness()


def write_validation(
    run: RunWriter, version: int, metric: float | None, loss: float | None
) -> None:
    run.write("server", 2.9, "validation", task="digits", version=version, metric=metric, loss=loss)
