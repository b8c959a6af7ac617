"""The same experiment in processes of this machine and in containers, and what kills do to it."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.engine import TAG, Engine
from tests.system.commands import Ended, start, wait_for_line
from tests.system.machine_state import host_network, leftovers, namespaces

from fadelab.exit_codes import ExitCode
from fadelab.results.record import read_events
from fadelab_emulation import linux
from fadelab_emulation.attach.interfaces import list_interfaces
from fadelab_emulation.namespaces import in_new_thread
from fadelab_emulation.netlink import links, traffic
from fadelab_emulation.netlink.message import NetlinkError, NetlinkSocket

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

_AGENTS = 6
_EXPERIMENT = """
name: six
duration_s: 15
devices: {count: 6}
task: {name: digits, model: {kind: mlp, hidden: 100}}
partition: {kind: iid}
training: {local_steps: 20, batch_size: 16, learning_rate: 0.2}
method: {name: fedavg, upload: {kind: dense}}
radio:
  mobility: {kind: random_waypoint, speed_mps: [1, 3]}
  rate: {kind: shannon, bandwidth_hz: 3e+5}
  contact: {kind: exponential, mean_contact_s: 6, mean_gap_s: 1}
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "six.yaml"
    path.write_text(_EXPERIMENT)
    return path


@dataclass
class Compose:
    """Runs in containers of one engine."""

    engine: Engine
    experiment: Path
    begun: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, run_dir: Path, *settings: str) -> "subprocess.Popen[str]":
        options = ("--deploy", "compose", "--tag", TAG)
        host = {"DOCKER_HOST": self.engine.host}
        process = start(
            run_dir, *settings, experiment=self.experiment, options=options, environment=host
        )
        self.begun.append(process)
        return process

    def container(self, service: str) -> str:
        """Return the name of the only container of a service."""
        label = f"label=fadelab.service={service}"
        return self.engine.docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").strip()

    def pid(self, service: str) -> int:
        """Return the first process of a service; 0 if it does not run."""
        inspect = ("inspect", "--format", "{{.State.Pid}}", self.container(service))
        return int(self.engine.docker(*inspect))

    def networks(self) -> set[str]:
        """Return the network namespaces of all containers that run now."""
        running = self.engine.docker("ps", "-q", "--filter", "label=fadelab.run").split()
        pids = self.engine.docker("inspect", "--format", "{{.State.Pid}}", *running).split()
        return {str(Path(f"/proc/{pid}/ns/net").readlink()) for pid in pids}

    def kill(self, service: str) -> None:
        self.engine.docker("kill", self.container(service))

    def start_again(self, service: str) -> None:
        self.engine.docker("start", self.container(service))

    def state(self) -> "State":
        return State(
            self.engine.docker("ps", "-aq", "--filter", "label=fadelab.run").split(),
            self.engine.docker("network", "ls", "-q", "--no-trunc").split(),
            host_network(),
            {str(one) for one in leftovers()},  # type: ignore[attr-defined]
        )


@dataclass(frozen=True)
class State:
    """The engine and the machine at one moment."""

    containers: list[str]
    docker_networks: list[str]
    host_network: bytes
    leftovers: set[str]

    def check(self, after: "State", used: set[str]) -> None:
        """Hold the machine after a run to what it was before."""
        assert after.containers == self.containers
        assert after.docker_networks == self.docker_networks
        assert after.host_network == self.host_network
        assert after.leftovers <= self.leftovers
        # With the namespaces, all links and queueing disciplines in them are gone.
        assert used
        assert not used & namespaces()


@pytest.fixture
def compose(docker_engine: Engine, images: str, experiment: Path) -> Iterator[Compose]:
    made = Compose(docker_engine, experiment)
    yield made
    for process in made.begun:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)


def ended(process: "subprocess.Popen[str]", run_dir: Path) -> Ended:
    output, _ = process.communicate(timeout=240)
    return Ended(process.returncode, output, run_dir)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_same_experiment_runs_local_and_in_containers(
    compose: Compose, experiment: Path, tmp_path: Path
) -> None:
    before = compose.state()
    process = compose.start(tmp_path / "compose")
    wait_for_line(process, "the run has begun")
    used = compose.networks()
    inside = ended(process, tmp_path / "compose")
    before.check(compose.state(), used)
    here = ended(start(tmp_path / "local", experiment=experiment), tmp_path / "local")
    assert inside.code == here.code == ExitCode.VALID, inside.output + here.output
    # One of each agent, of server and hub together, and of the validator without any link.
    assert len(used) > _AGENTS + 1
    check_alike(here.summary, inside.summary)
    expected = names(here.run_dir)
    found = {name for name in names(inside.run_dir) if not name.startswith("compose/")}
    assert found - {"emulation.json"} == expected - {"log.txt"}
    manifest = json.loads((inside.run_dir / "manifest.json").read_text())
    assert manifest["deployment"] == "compose"
    assert {path.stat().st_uid for path in inside.run_dir.rglob("*")} == {os.geteuid()}


def check_alike(here: dict[str, object], inside: dict[str, object]) -> None:
    """Hold one summary against the other."""
    assert here["valid"] is inside["valid"] is True
    for summary in (here, inside):
        task, links_ = summary["tasks"]["digits"], summary["links"]  # type: ignore[index]
        assert task["final"] > 0.8
        assert len(links_["calibration"]) == 8
        assert all(row["within_bounds"] for row in links_["calibration"])
        total = summary["total"]
        assert total["leaked_packets"] == 0  # type: ignore[index]
        assert abs(total["bytes"]["up"]["residual_percent"]) < 2  # type: ignore[index]
        assert len(summary["devices"]) == _AGENTS  # type: ignore[arg-type]
    accuracies = [s["tasks"]["digits"]["final"] for s in (here, inside)]  # type: ignore[index]
    # Of 360 images to be told apart, three standard deviations at 85 % are 6 %.
    assert abs(accuracies[0] - accuracies[1]) < 0.08
    variants = [s["links"]["variant"] for s in (here, inside)]  # type: ignore[index]
    assert variants[0] == variants[1]


class Unshaped:
    """Looks again and again for bytes that left an interface past its shaper.

    What a shaper has let go is counted before the interface counts it: an interface that is read
    first must never be ahead.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self.looks = 0
        self.bytes = 0
        self.pid = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(0.02):
            pid = self.pid
            if pid:
                try:
                    in_new_thread(lambda pid=pid: self._look(pid))  # type: ignore[misc]
                except (FileNotFoundError, ProcessLookupError, NetlinkError):
                    continue  # its container, or the link, has just gone

    def _look(self, pid: int) -> None:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            linux.setns(descriptor, linux.CLONE_NEWNET)
        finally:
            os.close(descriptor)
        with NetlinkSocket() as netlink:
            for one in list_interfaces(netlink):
                if one.is_loopback:
                    continue
                (counters,) = netlink.query([links.read_counters(one.index)])
                sent = links.parse_counters(counters).tx_bytes
                (shaper,) = netlink.query([traffic.read_shaper(one.index)])
                shaped = traffic.parse_shaper(shaper).sent_bytes
                self.looks += 1
                self.bytes = max(self.bytes, sent)
                if sent > shaped:
                    self.found.append(f"{one.name}: {sent} bytes sent, {shaped} through the shaper")


@pytest.fixture
def unshaped() -> Iterator[Unshaped]:
    watch = Unshaped()
    yield watch
    watch.stop()


@pytest.mark.endurance
def test_killed_agents_and_servers_start_again_and_no_byte_is_unshaped(
    compose: Compose, unshaped: Unshaped, tmp_path: Path
) -> None:
    run_dir = tmp_path / "killed"
    process = compose.start(run_dir, "duration_s=40", "validity.resume_p95_ms=5000")
    wait_for_line(process, "the run has begun")
    unshaped.pid = compose.pid("agent-2")
    wait_for_line(process, "t =")
    compose.kill("agent-2")
    unshaped.pid = 0
    compose.start_again("agent-2")
    unshaped.pid = compose.pid("agent-2")
    looks = unshaped.looks
    compose.kill("server")
    compose.start_again("server")
    found = ended(process, run_dir)
    unshaped.stop()
    assert unshaped.found == []
    assert unshaped.looks > looks > 0
    assert unshaped.bytes > 0
    assert found.code == ExitCode.VALID, found.output
    events = [event for path in (run_dir / "events").iterdir() for event in read_events(path)]
    said = [event["event"] for event in events]
    assert said.count("link_moved") == 1
    restarted = {e["who"] for e in events if e["event"] == "container_restarted"}
    assert restarted >= {"agent-2", "server"}
    assert [e["event"] for e in events if e["role"] == "server"].count("resumed") == 1
    joined = [e for e in events if e["event"] == "agent_started" and e["id"] == "2"]
    assert len(joined) == 2
    assert compose.container("agent-2") == ""


@pytest.mark.endurance
def test_a_killed_emulator_is_the_runs_end_and_leaves_links_shaped(
    compose: Compose, unshaped: Unshaped, tmp_path: Path
) -> None:
    before = compose.state()
    process = compose.start(tmp_path / "run", "duration_s=60")
    wait_for_line(process, "the run has begun")
    used = compose.networks()
    unshaped.pid = compose.pid("agent-0")
    wait_for_line(process, "t =")
    compose.kill("emulator")
    compose.start_again("emulator")
    found = ended(process, tmp_path / "run")
    unshaped.stop()
    assert found.code == ExitCode.COMPONENT_FAILED, found.output
    assert "fadelab: emulator: it ended unexpectedly with SIGKILL" in found.output
    assert found.summary["valid"] is False
    assert unshaped.found == []
    assert unshaped.looks > 0
    before.check(compose.state(), used)


@pytest.mark.endurance
def test_ctrl_c_and_a_killed_launcher_leave_nothing_for_long(
    compose: Compose, tmp_path: Path
) -> None:
    before = compose.state()
    process = compose.start(tmp_path / "first", "duration_s=60")
    wait_for_line(process, "links by")
    used = compose.networks()
    process.kill()
    process.communicate()
    assert compose.networks() == used, "containers of a killed launcher vanish by themselves"
    second = compose.start(tmp_path / "second", "duration_s=60")
    wait_for_line(second, "whose launcher was killed")
    wait_for_line(second, "links by")
    used |= compose.networks()
    second.send_signal(signal.SIGINT)
    found = ended(second, tmp_path / "second")
    assert found.code == ExitCode.INTERRUPTED, found.output
    assert "fadelab: interrupted before the run was over" in found.output
    before.check(compose.state(), used)
