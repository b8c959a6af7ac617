"""A whole testbed on a swarm of two engines, each in a network of its own, as docs/cluster.md says."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine import wheels
from tests.system.two_engines import Engine, said, two_engines

from fadelab.images.build import SOURCE, Target, image_name
from fadelab.results.schema import Summary

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

_TAG = "swarm-test"
_STACK = "trial"
_DEVICES = 4
_BASE = "python:3.11-slim-bookworm"
_EXPERIMENT = f"""
name: {_STACK}
seed: 2
duration_s: 25
devices: {{count: {_DEVICES}}}
task: {{name: digits, model: {{kind: mlp, hidden: 64}}}}
partition: {{kind: dirichlet, beta: 0.5}}
training: {{local_steps: 20, batch_size: 32, learning_rate: 0.5}}
method: {{name: fedasync, alpha: 0.4, upload: {{kind: topk, fraction: 0.5}}}}
radio:
  area_m: [300, 300]
  carrier_hz: 5.9e+9
  mobility: {{kind: random_waypoint, speed_mps: [20, 30], pause_s: [0, 2]}}
  path_loss: {{kind: log_distance, exponent: 3.2}}
  rate: {{kind: shannon, bandwidth_hz: 200000, noise_figure_db: 9}}
  contact: {{kind: coverage, radius_m: 140, hysteresis_m: 5}}
# Other work on the machine makes links late; what they let through is held to the usual bounds.
validity:
  lateness_p99_ms: 5000
  calibration_rate_error: 0.25
  resume_p95_ms: 500
"""


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Engine, Engine]]:
    """Yield a manager and a worker, both with the images."""
    for program in ("dockerd", "docker", "nsenter", "debootstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    if os.geteuid() != 0:
        pytest.skip("needs root, to start Docker engines")
    cache = Path.home() / ".cache" / "fadelab" / "swarm"
    with (
        tempfile.TemporaryDirectory(prefix="flsw-") as run,
        two_engines(cache, Path(run)) as (manager, worker),
    ):
        _make_images(manager)
        _hand_over(manager, worker)
        manager.docker("swarm", "init", "--advertise-addr", manager.address)
        token = manager.docker("swarm", "join-token", "-q", "worker").strip()
        worker.docker("swarm", "join", "--token", token, f"{manager.address}:2377")
        manager.docker("node", "update", "--label-add", "fadelab=server", "h1")
        yield manager, worker


def fadelab(*arguments: object, **env: str) -> str:
    """Run the command in this environment."""
    return said(sys.executable, "-m", "fadelab", *map(str, arguments), **env)


def _make_images(engine: Engine) -> None:
    if not engine.docker("image", "ls", "-q", _BASE):
        said(SOURCE / "deploy" / "docker" / "base.sh", DOCKER_HOST=engine.host)
    options = ("--wheels", wheels(), "--offline", "--tag", _TAG)
    fadelab("images", "build", *options, DOCKER_HOST=engine.host)


def _hand_over(giver: Engine, taker: Engine) -> None:
    images = [image_name(target, _TAG) for target in Target]
    save = ["docker", "--host", giver.host, "save", *images]
    with subprocess.Popen(save, stdout=subprocess.PIPE) as saving:
        load = ["docker", "--host", taker.host, "load", "--quiet"]
        subprocess.run(load, stdin=saving.stdout, check=True, timeout=600)
    assert saving.returncode == 0


def _copy_record(engine: Engine, target: Path) -> Path:
    """Copy a node's /out as the how-to says."""
    target.mkdir()
    image = image_name(Target.SERVER, _TAG)
    copy = ["docker", "--host", engine.host, "run", "--rm", "-v", f"{_STACK}_out:/out",
            "--entrypoint", "tar", image, "-C", "/out", "-c", "."]  # fmt: skip
    with subprocess.Popen(copy, stdout=subprocess.PIPE) as copying:
        subprocess.run(["tar", "-C", target, "-x"], stdin=copying.stdout, check=True, timeout=120)
    return target


def _await_the_end(manager: Engine) -> None:
    """Follow the conductor's log, which ends with its container."""
    follow = ["docker", "--host", manager.host, "service", "logs", "--raw", "-f"]
    heard = []
    with subprocess.Popen(
        [*follow, f"{_STACK}_conductor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as logs:
        assert logs.stdout is not None
        for line in logs.stdout:
            heard.append(line.strip())
            if line.startswith(("the run is over", "fadelab:")):
                break
        logs.terminate()
    assert heard[-1] == "the run is over", heard


def _take_down(manager: Engine, engines: tuple[Engine, Engine]) -> None:
    """Remove the stack and wait for the engines to say of every container that it is gone."""
    since = str(int(time.time()) - 1)
    manager.docker("stack", "rm", _STACK)
    chosen = ["--filter", f"label=com.docker.stack.namespace={_STACK}"]
    for engine in engines:
        ends = ["--since", since, "--filter", "event=die", "--filter", "event=destroy"]
        events = ["docker", "--host", engine.host, "events", *chosen, *ends]
        with subprocess.Popen(events, stdout=subprocess.PIPE, text=True) as told:
            assert told.stdout is not None
            while left := engine.docker("ps", "--all", "--quiet", *chosen).split():
                running = engine.docker("ps", "--quiet", *chosen).split()
                ended = set(left) - set(running)
                if not ended:
                    told.stdout.readline()
                for one in ended:
                    engine.docker("rm", one, check=False)
            told.terminate()
        engine.docker("volume", "rm", f"{_STACK}_out", f"{_STACK}_sockets", check=False)


def _events(run: Path, name: str) -> list[dict[str, Any]]:
    lines = (run / "events" / "emulator-0.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def test_one_experiment_on_two_nodes(engines: tuple[Engine, Engine], tmp_path: Path) -> None:
    manager, _ = engines
    (tmp_path / "trial.yaml").write_text(_EXPERIMENT)
    testbed, run = tmp_path / "testbed", tmp_path / "run"
    fadelab("stack", tmp_path / "trial.yaml", "-o", testbed, "--tag", _TAG)
    manager.docker(
        "stack", "deploy", "--resolve-image", "never", "-c", testbed / "stack.yaml", _STACK
    )
    try:
        _await_the_end(manager)
        nodes = [_copy_record(engine, tmp_path / engine.name) for engine in engines]
    finally:
        _take_down(manager, engines)
    assert "h2: devices" in fadelab("collect", testbed, *nodes, "-o", run)
    # Whatever the verdict is: its reasons are in the summary.
    said(sys.executable, "-m", "fadelab", "report", run, check=False)

    summary = Summary.model_validate_json((run / "summary.json").read_text())
    assert summary.valid, summary.invalid_reasons
    assert summary.tasks["digits"].versions > 10
    assert all(device.bytes.up.payload > 0 for device in summary.devices.values())
    # Links were made on both nodes, each where its agent was, after one timeline.
    where = json.loads((run / "manifest.json").read_text())["nodes"]
    assert sorted(d for node in where.values() for d in node["devices"]) == list(range(_DEVICES))
    assert all(node["devices"] for node in where.values())
    # (The nodes hear of the end a tick apart.)
    shorter, longer = sorted(((node / "links.schedule").read_bytes() for node in nodes), key=len)
    assert len(shorter) > 20_000
    assert longer.startswith(shorter)
    # Nothing left an agent's container but over its link.
    given = _events(run, "link_given")
    assert {event["device"] for event in given} == set(range(_DEVICES))
    assert all(sum(event["sealed_sent_packets"]) == 0 for event in given)
    # Nothing stays.
    for engine in engines:
        assert _STACK not in engine.docker("ps", "--all", "--format", "{{.Names}}")
        assert _STACK not in engine.docker("volume", "ls", "--format", "{{.Name}}")
