"""The inventory of boards: what is taken, and what is refused in which words."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fadelab.boards.facts import BoardFacts, InterfaceFacts, problems
from fadelab.boards.files import Spot, agent_file, check_fit, link_file
from fadelab.boards.inventory import Inventory, load_inventory
from fadelab.boards.push import trust_files
from fadelab.boards.ssh import Board
from fadelab.exit_codes import FadelabError
from fadelab.experiment import Experiment, load_experiment
from fadelab.local.plan import RunPlan
from fadelab_agent.radio_config import NoRadioConfig

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


def content() -> dict[str, Any]:
    return {
        "server": {"address": "192.0.2.1"},
        "trust": "trust",
        "profiles": [
            {"name": "pi", "link": {"kind": "emulated", "interface": "eth1"}},
            {
                "name": "wifi",
                "link": {"kind": "none", "rate_up_bps": 2e7},
                "compute": {"cpu_hz": 2e7},
            },
        ],
        "boards": [
            {"name": "a", "profile": "pi", "host": "pi-a", "identity": "key"},
            {"name": "b", "profile": "wifi", "host": "pi-b", "user": "lab", "port": 2222},
        ],
    }


def load(tmp_path: Path, **changes: Any) -> Inventory:
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(content() | changes))
    return load_inventory(path)


def facts(**changes: Any) -> BoardFacts:
    known: dict[str, Any] = {
        "python": (3, 11, 2),
        "has_venv": True,
        "architecture": "aarch64",
        "kernel": "6.12",
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "folder": "/home/pi/fadelab",
        "free_bytes": 10_000_000_000,
        "modules": {"sch_tbf": True, "ifb": None},
        "interface": InterfaceFacts(address="192.0.2.10", mtu_bytes=1500),
        "ssh_address": "198.51.100.10",
        "is_root": False,
        "may_be_root": True,
        "systemd": True,
        "sensors": [],
        "installed": False,
    }
    return BoardFacts(**(known | changes))


def plan(tmp_path: Path, experiment: Experiment) -> RunPlan:
    return RunPlan(
        experiment=experiment,
        run_dir=tmp_path,
        sockets_dir=tmp_path,
        data_dir=tmp_path,
        run_id=0xAB,
    )


def test_paths_are_relative_to_the_inventory(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found.trust == tmp_path / "trust"
    assert found.boards[0].identity == tmp_path / "key"
    assert found.boards[1].identity is None
    assert found.server.port == 50051


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "red"}, "colour"),
        ({"boards": []}, "boards"),
        ({"boards": [{"name": "a", "profile": "pi", "host": "x", "hots": 1}]}, "hots"),
        ({"boards": [{"name": "a", "profile": "jetson", "host": "x"}]}, "none of the profiles"),
        ({"boards": [{"name": "a", "profile": "pi", "host": "-oProxyCommand=x"}]}, "no '-' first"),
        (
            {"boards": [{"name": "a", "profile": "pi", "host": h} for h in "xy"]},
            "two boards are called a",
        ),
        ({"profiles": [{"name": "pi", "link": {"kind": "emulated"}}]}, "interface"),
        ({"profiles": [{"name": "pi", "link": {"kind": "lte"}}]}, "kind"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FadelabError) as refused:
        load(tmp_path, **changes)
    assert words in str(refused.value)
    assert "lab.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"python": (3, 9, 2)}, "Python 3.9.2"),
        ({"has_venv": False}, "python3-venv"),
        ({"free_bytes": 1e9}, "1.0 GB are free"),
        ({"free_bytes": 1e9, "installed": True}, None),
        ({"may_be_root": False}, "sudo"),
        ({"interface": None}, "no interface eth1"),
        ({"modules": {"ifb": False}}, "lacks ifb"),
        ({"ssh_address": "192.0.2.10"}, "SSH comes in over eth1"),
    ],
)
def test_what_a_board_lacks_is_named(
    tmp_path: Path, changes: dict[str, Any], words: str | None
) -> None:
    board = Board(load(tmp_path), 0, tmp_path)
    found = problems(board, facts(**changes))
    assert (not found) if words is None else (len(found) == 1 and words in found[0]), found


def test_a_real_link_needs_neither_root_nor_qdiscs(tmp_path: Path) -> None:
    board = Board(load(tmp_path), 1, tmp_path)
    lacking = facts(may_be_root=False, modules={"ifb": False}, interface=None)
    assert problems(board, lacking) == []


def test_every_process_gets_its_own_file(tmp_path: Path) -> None:
    inventory = load(tmp_path)
    experiment = load_experiment(QUICKSTART, ["devices.count=2"])
    run = plan(tmp_path, experiment)
    spot = Spot.of(facts(), run.run_id)
    emulated, real = (Board(inventory, device, tmp_path) for device in (0, 1))
    link = link_file(run, emulated, spot)
    assert link is not None
    assert link.world is not None
    assert (link.world.devices, link.world.drives) == (2, (0,))
    assert link.devices[0].attach == "eth1"
    agent = agent_file(run, inventory, emulated, spot).agent
    assert agent.server == "192.0.2.1:50051"
    assert agent.radio_socket == link.radio_socket
    assert agent.trust is not None
    assert agent.trust.certificate == Path("/home/pi/fadelab/trust/device-0.pem")
    assert link_file(run, real, spot) is None
    agent = agent_file(run, inventory, real, spot).agent
    assert agent.radio_socket is None
    assert isinstance(agent.radio, NoRadioConfig)
    assert agent.radio.rate_up_bps == 2e7
    assert agent.compute.cpu_hz == 2e7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["devices.count=3"], "the inventory has 2 boards"),
        (["devices.count=2", "radio.time_scale=2"], "real links know no other time"),
    ],
)
def test_experiments_that_do_not_fit_are_refused(
    tmp_path: Path, settings: list[str], words: str
) -> None:
    with pytest.raises(FadelabError, match=words):
        check_fit(load_experiment(QUICKSTART, settings), load(tmp_path))


def test_a_trust_folder_of_fewer_boards_is_told(tmp_path: Path) -> None:
    with pytest.raises(FadelabError, match="made for fewer boards"):
        trust_files(load(tmp_path), 1)
