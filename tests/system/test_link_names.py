"""Links in named namespaces, from their creation to their end, in a /run of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCENE = Path(__file__).parent / "link_names_scene.py"
NONE = {"fadelab-lab": [], "fadelab-lab-0": [], "fadelab-lab-1": []}
LINKS = {"fadelab-lab": ["fl0", "fl1"], "fadelab-lab-0": ["eth0"], "fadelab-lab-1": ["eth0"]}


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the scene observed."""
    as_root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    done = subprocess.run(
        ["unshare", *as_root, "--mount", "--net", sys.executable, str(SCENE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_names_are_made_without_links(seen: dict[str, Any]) -> None:
    assert seen["listed"] == [{"name": "lab", "devices": 2, "whole": True, "driven": False}]
    assert seen["created"] == NONE
    assert "fadelab-lab exists already" in seen["twice"]


def test_links_are_there_and_carry_packets_while_driven(seen: dict[str, Any]) -> None:
    assert seen["driven"] == LINKS
    assert seen["message"] == "hello from 10.77.1.2"
    assert seen["interrupted"] == 0
    assert seen["after_interrupt"] == NONE


def test_one_process_at_a_time(seen: dict[str, Any]) -> None:
    assert seen["driven_state"] is True
    for said in (seen["delete_while_driven"], seen["drive_while_driven"]):
        assert said == "the links 'lab' are being driven by another process; end it first"


def test_what_a_killed_process_left_is_in_nobodys_way(seen: dict[str, Any]) -> None:
    assert seen["after_kill"] == LINKS
    assert seen["message_after_kill"] == "hello from 10.77.1.2"
    assert seen["over"] == 0
    assert seen["after_duration"] == NONE


def test_others_namespaces_are_left_alone(seen: dict[str, Any]) -> None:
    for said in seen["foreign"]:
        assert said == "/run/netns/fadelab-foreign was not made by Fadelab and is left alone"
    assert seen["own"] == ["lab"]
    assert seen["left"] == ["fadelab-foreign"]
