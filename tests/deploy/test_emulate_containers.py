"""Containers found by name, and followed when they start again."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from emulate_bench import Emulation, Flow, Machine, NotDrivingError, in_sandbox, steady
from fake_engine import FakeEngine

pytestmark = pytest.mark.namespaces

_RATE_BPS = 4e6
_SERVER, _AGENT = "a" * 64, "b" * 64


class Containers:
    """A machine whose processes are containers of an engine."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.engine = FakeEngine(Path("/run/docker.sock"))
        os.environ["DOCKER_HOST"] = "unix:///run/docker.sock"
        self._names = 0
        self.pids: dict[str, int] = {}

    def run(self, name: str, identity: str) -> str:
        """Start a container in a network of its own; return a name of that network."""
        self._names += 1
        space = f"net{self._names}"
        self.machine.add_namespace(space)
        pid = self.machine.inside(space, _idle)
        self.pids[name] = pid
        self.engine.start(name, identity, pid)
        return space

    def kill(self, name: str) -> None:
        """End a container."""
        os.kill(self.pids[name], signal.SIGKILL)
        os.waitpid(self.pids[name], 0)


def _idle() -> int:
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


def content(**more: Any) -> dict[str, Any]:
    star = {"server": {"container": "server"}, "devices": [{"container": "agent-0"}]}
    return {"radio": steady(_RATE_BPS), **star, **more}


def uplink_rate_bps(machine: Machine, device: str, server: str) -> float:
    receiver = machine.udp(server, "10.77.0.1", 5000)
    sender = machine.udp(device, "10.77.1.1")
    sender.connect(receiver.getsockname())
    flow = Flow(sender, receiver)
    time.sleep(0.3)
    rate_bps = flow.rate_bps(0.5)
    flow.stop()
    sender.close()
    receiver.close()
    return rate_bps * 1514 / 1472


def restarted() -> dict[str, Any]:
    containers = Containers()
    machine = containers.machine
    server = containers.run("server", _SERVER)
    first = containers.run("agent-0", _AGENT)
    seen: dict[str, Any] = {"names": [server, first]}
    with machine.emulating(**content()) as emulation:
        seen["rates"] = [uplink_rate_bps(machine, first, server)]
        containers.kill("agent-0")
        # As a compose file's container that is made anew: same name, another id.
        second = containers.run("agent-0", "c" * 64)
        seen["said"] = emulation.await_line("the container")
        seen["rates"].append(uplink_rate_bps(machine, second, server))
        # Said again of a container that is where it was: nothing is to happen.
        containers.engine.start("agent-0", "c" * 64, containers.pids["agent-0"])
        containers.run("stranger", "d" * 64)
        seen["while"] = [machine.interfaces(name) for name in (server, first, second)]
        seen["code"] = emulation.end()
        seen["moved"] = len(emulation.events("link_moved"))
        (account,) = emulation.events("link_account")
        seen["wire"] = account["up_wire_bytes"]
    seen["after"] = [machine.interfaces(name) for name in (server, first, second)]
    return seen


def test_the_link_of_a_container_that_starts_again_is_made_anew() -> None:
    seen = in_sandbox(restarted)
    for rate_bps in seen["rates"]:
        # A busy machine serves a link late, never early; conformance tests judge the accuracy.
        assert 0.7 * _RATE_BPS < rate_bps < 1.03 * _RATE_BPS
    assert seen["said"] == "the container agent-0 has started again: its link is made anew"
    assert seen["while"] == [["fl0", "lo"], ["lo"], ["fl0", "lo"]]
    assert seen["after"] == [["lo"]] * 3
    assert seen["code"] == 0
    assert seen["moved"] == 1
    # Both links' bytes: each carried at least 0.8 s at the programmed rate.
    assert seen["wire"] > 1.6 * _RATE_BPS / 8 * 0.9


def send(machine: Machine, device: str, server: str, size: int) -> None:
    """Send so much over a connection of its own."""
    sender, receiver = machine.tcp_pair(device, server, "10.77.0.1")
    with sender, receiver:
        sender.sendall(bytes(size))
        sender.shutdown(socket.SHUT_WR)
        while receiver.recv(size):
            pass


def accounted() -> dict[str, Any]:
    containers = Containers()
    machine = containers.machine
    server = containers.run("server", _SERVER)
    first = containers.run("agent-0", _AGENT)
    run = {"of_run": True, "start": "on_begin", "radio_socket": "/run/test/radio"}
    with machine.emulating(**content(**run)) as emulation:
        send(machine, first, server, 10_000)
        containers.kill("agent-0")
        second = containers.run("agent-0", "c" * 64)
        emulation.await_line("the container")
        send(machine, second, server, 6_000)
        emulation.end()
        (account,) = emulation.events("link_account")
    seen = {"account": account, "calibrated": emulation.events("calibrated")}
    try:
        Emulation(machine.file(record=str(emulation.record), **content(**run)))
    except NotDrivingError as refused:
        seen["again"] = str(refused)
    return seen


def test_the_links_of_a_run_are_calibrated_and_accounted_over_restarts() -> None:
    seen = in_sandbox(accounted)
    assert "recordings are not overwritten" in seen["again"]
    assert {row["direction"] for row in seen["calibrated"]} == {"up", "down"}
    account = seen["account"]
    assert account["connections"] == 2
    assert account["connections_missed"] == 0
    assert account["up_tcp_bytes"] - account["up_tcp_retransmitted_bytes"] == 16_000
    for way in ("up", "down"):
        assert account[f"{way}_device_end_bytes"] == account[f"{way}_wire_bytes"] > 0


def restarted_where_nothing_can_be_made_anew(content_of: dict[str, Any], name: str) -> list[Any]:
    containers = Containers()
    server = containers.run("server", _SERVER)
    agent = containers.run("agent-0", _AGENT)
    containers.machine.add_veth(agent, server)
    emulation = Emulation(containers.machine.file(**content_of))
    containers.run(name, "c" * 64)
    emulation.await_end()
    left = [containers.machine.interfaces(space) for space in (server, agent)]
    return [emulation.code, emulation.said[-1], left]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (content(), "server"),
        (
            {
                "radio": steady(_RATE_BPS),
                "devices": [{"container": "agent-0", "attach": "eth0"}],
            },
            "agent-0",
        ),
    ],
)
def test_a_server_or_an_attached_container_that_starts_again_ends_the_emulation(
    given: dict[str, Any], name: str
) -> None:
    code, sentence, left = in_sandbox(restarted_where_nothing_can_be_made_anew, given, name)
    assert code == 6
    assert sentence.startswith(f"the container {name} has started again, with a network in which")
    assert left == [["eth0", "lo"]] * 2


def refusals() -> list[str]:
    containers = Containers()
    containers.run("server", _SERVER)
    containers.run("agent-0", _AGENT)
    containers.engine.containers["agent-0"]["State"] = {"Pid": 0, "Status": "exited"}
    said = []
    for given in (
        content(),
        content(server={"container": "aaaa"}, devices=[{"container": "nobody"}]),
    ):
        try:
            Emulation(containers.machine.file(**given)).end()
        except NotDrivingError as refusal:
            said.append(f"{refusal.args[0]} {refusal.args[1]}")
    containers.engine.shutdown()
    Path("/run/docker.sock").unlink()
    try:
        Emulation(containers.machine.file(**content()))
    except NotDrivingError as refusal:
        said.append(f"{refusal.args[0]} {refusal.args[1]}")
    return said


def test_containers_that_cannot_be_found_are_one_sentence_each() -> None:
    stopped, unknown, no_engine = in_sandbox(refusals)
    assert stopped.startswith("2 the container agent-0 is not running (exited)")
    assert unknown.startswith("2 there is no container nobody")
    assert no_engine.startswith("4 no Docker engine answers")
    assert "\n" not in no_engine
