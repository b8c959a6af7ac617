"""The files of a testbed of containers."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commandline import command
from run_record import QUICKSTART

from fadelab.cli.processes import AgentFile, ValidatorFile
from fadelab.compose.services import Testbed, compose_file
from fadelab.emulate.config import load_emulation
from fadelab.exit_codes import ExitCode
from fadelab_server.config import ServerConfig

_MADE = ("--set", "devices.count=3", "--set", "radio.time_scale=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the command wrote for three agents."""
    made = tmp_path_factory.mktemp("compose") / "testbed"
    ended = command("compose", QUICKSTART, "-o", made, *_MADE, DOCKER_HOST="unix:///some/socket")
    assert ended.returncode == 0, ended.stderr
    return made


def services(folder: Path) -> dict[str, dict[str, Any]]:
    tree = yaml.safe_load((folder / "compose.yaml").read_text())
    assert set(tree) == {"services"}
    found: dict[str, dict[str, Any]] = tree["services"]
    return found


def test_there_is_a_server_an_emulator_and_each_agent(folder: Path) -> None:
    agents = {f"agent-{device}" for device in range(3)}
    found = services(folder)
    assert set(found) == {"hub", "server", "emulator", "validator", "begin"} | agents
    images = {name: service["image"].split(":")[0] for name, service in found.items()}
    assert images["hub"] == images["server"] == images["begin"] == "fadelab-server"
    assert images["emulator"] == "fadelab-emulator"
    assert {images[name] for name in agents | {"validator"}} == {"fadelab-agent"}
    shares = {name: service.get("cpu_shares", 1024) for name, service in found.items()}
    assert {name for name, share in shares.items() if share < 1024} == agents | {"validator"}
    assert {name for name, share in shares.items() if share > 1024} == {"emulator"}
    assert set(found["emulator"]["depends_on"]) == agents | {"hub", "server"}


def test_no_container_has_a_network_and_only_the_emulator_a_capability(folder: Path) -> None:
    for name, service in services(folder).items():
        assert service["network_mode"] == ("service:hub" if name == "server" else "none")
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
        mounts_engine = any("docker.sock" in volume for volume in service["volumes"])
        trusted = name == "emulator"
        assert ("cap_add" in service, "pid" in service, mounts_engine) == (trusted,) * 3
        assert service["user"].startswith("0:") == trusted
    emulator = services(folder)["emulator"]
    needed = {"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SYS_NICE"}
    assert set(emulator["cap_add"]) == needed
    assert "/some/socket:/var/run/docker.sock" in emulator["volumes"]


def test_each_process_can_read_its_configuration(folder: Path) -> None:
    config = folder / "config"
    server = ServerConfig.model_validate_json((config / "server.json").read_bytes())
    agents = [
        AgentFile.model_validate_json((config / f"agent-{device}.json").read_bytes())
        for device in range(3)
    ]
    validator = ValidatorFile.model_validate_json((config / "validator.json").read_bytes())
    initial = server.tasks[0].initial.relative_to("/out")
    assert np.load(folder / "out" / initial).shape == (server.tasks[0].dimension,)
    assert server.listen == "0.0.0.0:50051"
    assert [agent.agent.device for agent in agents] == [0, 1, 2]
    assert {agent.agent.run_id for agent in agents} == {server.run_id}
    assert {agent.agent.server for agent in agents} == {"10.77.0.1:50051"}
    assert len({agent.agent.state_dir for agent in agents}) == 3
    assert all(agent.work == validator.work for agent in agents)
    assert validator.operator_socket == server.operator_socket
    assert server.time_scale == validator.time_scale == agents[0].agent.time_scale == 2


def test_the_emulator_finds_the_containers_of_the_compose_file(folder: Path) -> None:
    emulation = load_emulation(folder / "config" / "emulate.yaml")
    found = services(folder)
    names = [emulation.server, *emulation.devices]
    expected = ["hub", "agent-0", "agent-1", "agent-2"]
    assert [place.container for place in names if place is not None] == [
        found[name]["container_name"] for name in expected
    ]
    agent = json.loads((folder / "config" / "agent-0.json").read_text())
    assert str(emulation.radio_socket) == agent["agent"]["radio_socket"]
    begin = found["begin"]["command"]
    assert begin == ["begin", "/run/fadelab/sockets", "3", "--time-scale", "2"]


def test_the_emulator_may_write_beside_the_others_without_privileges_on_files(folder: Path) -> None:
    user, group = services(folder)["server"]["user"].split(":")
    assert services(folder)["emulator"]["user"] == f"0:{group}"
    for name in ("out", "sockets"):
        facts = (folder / name).stat()
        assert (facts.st_uid, facts.st_gid) == (int(user), int(group))
        assert facts.st_mode & 0o7777 == 0o2775


def test_data_sets_are_mounted_where_models_are_trained() -> None:
    testbed = Testbed(
        name="x",
        agents=1,
        tag="1",
        time_scale=1.0,
        user=(7, 8),
        docker_socket=Path("/var/run/docker.sock"),
        data_dir=Path("/somewhere/data"),
        run_id=0xA1,
    )
    found = yaml.safe_load(compose_file(testbed))["services"]
    with_data = {
        name for name, service in found.items() if "/somewhere/data:/data:ro" in service["volumes"]
    }
    assert with_data == {"agent-0", "validator"}


def test_every_container_says_whose_it_is(folder: Path) -> None:
    found = services(folder)
    runs = {service["labels"]["fadelab.run"] for service in found.values()}
    assert {service["labels"]["fadelab.service"] for service in found.values()} == set(found)
    (run,) = runs
    assert (folder / ".env").read_text() == f"COMPOSE_PROJECT_NAME=fadelab-{run}\n"
    assert all(f"-{run}-" in service["container_name"] for service in found.values())


def test_files_that_a_radio_names_come_along(tmp_path: Path) -> None:
    steps = tmp_path / "rates.csv"
    steps.write_text("t_s,rate_up_bps,rate_down_bps\n0,1e6,1e6\n")
    radio = f"radio={{timeline: {{kind: csv, path: {steps}}}}}"
    made = tmp_path / "testbed"
    ended = command("compose", QUICKSTART, "-o", made, "--set", "devices.count=1", "--set", radio)
    assert ended.returncode == 0, ended.stderr
    emulation = yaml.safe_load((made / "config" / "emulate.yaml").read_text())
    named = Path(emulation["radio"]["timeline"]["path"])
    assert named.parent == Path("/config")
    assert (made / "config" / named.name).read_text() == steps.read_text()


def test_nothing_is_overwritten(folder: Path) -> None:
    ended = command("compose", QUICKSTART, "-o", folder)
    assert ended.returncode == ExitCode.USAGE
    assert "exists already" in ended.stderr


def test_docker_compose_accepts_the_file(folder: Path) -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("needs docker-compose")
    ended = subprocess.run(
        [program, "-f", folder / "compose.yaml", "config", "--services"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"]},
    )
    assert ended.returncode == 0, ended.stderr
    assert set(ended.stdout.split()) == set(services(folder))


def test_begin_says_how_many_devices_are_missing(tmp_path: Path) -> None:
    ended = command("begin", tmp_path, "2", "--patience-s", "1")
    assert ended.returncode == ExitCode.COMPONENT_FAILED
    assert "only 0 of 2 devices joined within 1 s" in ended.stderr
