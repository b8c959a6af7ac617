"""The files of a testbed for Docker Swarm."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from commandline import command
from run_record import QUICKSTART

from fadelab.cli.processes import ValidatorFile
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import load_experiment
from fadelab.manifest import Deployment
from fadelab.stack.agent_file import NodeAgentFile
from fadelab.stack.conductor import ConductorFile
from fadelab.stack.kubernetes import manifests
from fadelab.stack.node_file import NodeFile
from fadelab.stack.plan import Cluster, plan_cluster
from fadelab.stack.swarm import stack_file
from fadelab_server.config import ServerConfig

_MADE = ("--set", "devices.count=3", "--set", "radio.time_scale=2", "--registry", "lab:5000/")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the command wrote for three agents."""
    made = tmp_path_factory.mktemp("stack") / "testbed"
    ended = command("stack", QUICKSTART, "-o", made, *_MADE)
    assert ended.returncode == 0, ended.stderr
    return made


@pytest.fixture(scope="module")
def tree(folder: Path) -> dict[str, Any]:
    """Return the stack file."""
    found: dict[str, Any] = yaml.safe_load((folder / "stack.yaml").read_text())
    return found


def test_every_process_reads_its_file(folder: Path) -> None:
    def read(name: str) -> bytes:
        return (folder / "config" / name).read_bytes()

    server = ServerConfig.model_validate_json(read("server.json"))
    node = NodeFile.model_validate_json(read("node.json"))
    conductor = ConductorFile.model_validate_json(read("conductor.json"))
    agent = NodeAgentFile.model_validate_json(read("agent.json"))
    validator = ValidatorFile.model_validate_json(read("validator.json"))
    assert server.run_id == node.run_id == conductor.run_id == agent.agent.run_id
    assert server.trust is not None
    assert server.trust.client_ca is not None
    assert server.tokens is not None
    assert conductor.time_scale == server.time_scale == validator.time_scale == 2
    own = agent.agent_of(2, 0.25)
    assert (own.device, own.clock_offset_s, own.server) == (2, 0.25, "10.77.0.1:50051")
    assert own.state_dir is not None
    assert own.state_dir.name == "agent-2"
    assert str(own.token) == "/run/secrets/device-2.token"
    assert own.trust is not None
    assert str(own.trust.key) == "/run/secrets/device-2.key"


def test_emulators_alone_have_capabilities_and_nobody_has_docker(tree: dict[str, Any]) -> None:
    services = tree["services"]
    capable = {name for name, service in services.items() if "cap_add" in service}
    assert capable == {"emulator"}
    assert set(services["emulator"]["cap_add"]) == {
        "NET_ADMIN", "SYS_ADMIN", "NET_RAW", "SYS_NICE",
    }  # fmt: skip
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert "ports" not in service
        assert not any("docker.sock" in str(volume) for volume in service["volumes"])


def test_agents_lead_nowhere_and_management_is_apart(tree: dict[str, Any]) -> None:
    networks = {name: set(service["networks"]) for name, service in tree["services"].items()}
    assert networks["agent"] == networks["validator"] == {"nowhere"}
    assert networks["server"] == {"data"}
    assert networks["conductor"] == {"management"}
    assert networks["emulator"] == {"data", "management"}
    assert all(network["internal"] for network in tree["networks"].values())


def test_one_emulator_a_node_one_replica_a_device(tree: dict[str, Any]) -> None:
    services = tree["services"]
    assert services["emulator"]["deploy"]["mode"] == "global"
    agent = services["agent"]
    assert agent["deploy"]["replicas"] == 3
    assert agent["environment"] == {"FADELAB_SLOT": "{{.Task.Slot}}"}
    assert agent["image"].startswith("lab:5000/fadelab-agent:")
    assert all(s["deploy"]["endpoint_mode"] == "dnsrr" for s in services.values())
    together = {"server", "validator", "conductor"}
    placed = {name for name, service in services.items() if "placement" in service["deploy"]}
    assert placed == together


def test_keys_go_to_whom_they_belong(folder: Path, tree: dict[str, Any]) -> None:
    held = {
        name: {secret["source"] for secret in service["secrets"]}
        for name, service in tree["services"].items()
    }
    assert {name for name, keys in held.items() if "server-key" in keys} == {"server", "conductor"}
    assert {name for name, keys in held.items() if "operator-key" in keys} == {"emulator"}
    assert {name for name, keys in held.items() if "device-2-token" in keys} == {"agent"}
    assert held["validator"] == set()
    assert "ca-key" not in tree["secrets"]
    for entry in (*tree["secrets"].values(), *tree["configs"].values()):
        assert (folder / entry["file"]).is_file()
    assert (folder / "trust" / "device-0.key").stat().st_mode & 0o077 == 0


def cluster(folder: Path, *settings: str) -> Cluster:
    return plan_cluster(
        load_experiment(QUICKSTART, ["devices.count=2", *settings]),
        folder,
        tag="x",
        registry="",
        days=1,
        deployment=Deployment.SWARM,
    )


def test_what_a_cluster_has_not_got_is_refused(tmp_path: Path) -> None:
    found = cluster(tmp_path / "t")
    large = dataclasses.replace(found, files=found.files | {"initial.npy": bytes(2_000_000)})
    for write, who in ((stack_file, "Swarm"), (manifests, "Kubernetes")):
        with pytest.raises(FadelabError, match=f"{who} hands out at most") as caught:
            write(large)
        assert caught.value.code is ExitCode.USAGE
    with pytest.raises(FadelabError, match="exists already"):
        cluster(tmp_path / "t")
    with pytest.raises(FadelabError, match="datagrams"):
        cluster(tmp_path / "u", *_DATAGRAMS)
    assert not (tmp_path / "u").exists()


_DATAGRAMS = ("transport={classes: {update: {kind: datagrams, repeats: 2, deadline_s: 5}}}",)
