"""A node's links, with real interfaces: sealed, closed, given, and led on to the server."""

import os
import socket
from typing import Any

import numpy as np
import pytest
from emulate_bench import Machine, in_sandboxes

from fadelab.stack.links import NodeLinks
from fadelab_emulation import linux
from fadelab_emulation.attach.interfaces import list_interfaces
from fadelab_emulation.attach.places import RefusedPlaceError
from fadelab_emulation.backends.choice import Variant
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.link_state import plain_tick
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_emulation.netlink.translation import translate
from fadelab_proto.clock import SystemClock

pytestmark = pytest.mark.namespaces

_PORT = 50051
_TICK = plain_tick(np.full(2, 5e6), np.full(2, 5e6))


def up_interfaces() -> dict[str, bool]:
    with NetlinkSocket() as netlink:
        return {one.name: one.is_up for one in list_interfaces(netlink)}


def made_links() -> tuple[NodeLinks, Any]:
    links = NodeLinks(2, "fadelab emulate test", print)
    plan = LinkPlan([QueueSizes.for_rates(5e6, 5e6)] * 2)
    return links, links.make(Variant.LITE_CBPF, plan, SystemClock())


def given(links: NodeLinks, machine: Machine, device: int, name: str) -> Any:
    return links.look(device, os.open(machine.named / name, os.O_RDONLY))


def sealed_and_closed() -> dict[str, Any]:
    machine = Machine()
    for name in ("d0", "elsewhere"):
        machine.add_namespace(name)
    machine.add_veth("elsewhere", "d0")
    links, backend = made_links()
    seen: dict[str, Any] = {"before": machine.inside("d0", up_interfaces)}
    residence = given(links, machine, 0, "d0")
    seen["sealed"] = [one.name for one in residence.sealed]
    links.move(0, residence.opened, backend)
    seen["after"] = machine.inside("d0", up_interfaces)
    seen["again"] = given(links, machine, 0, "d0").opened
    try:
        given(links, machine, 1, "d0")
    except RefusedPlaceError as error:
        seen["refused"] = str(error)

    sender = machine.inside("d0", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("10.77.0.1", 0))
    sender.sendto(b"early", receiver.getsockname())
    before = backend.counters().up.wire_packets[0]
    backend.apply(_TICK)
    receiver.settimeout(5)
    seen["crossed"] = (int(before), receiver.recv(16))
    backend.close()
    return seen


def led_on() -> dict[str, Any]:
    machine = Machine()
    for name in ("d0", "server"):
        machine.add_namespace(name)
    machine.add_namespace("node")
    machine.add_veth("node", "server")  # 10.9.0.1 and 10.9.0.2

    def answer() -> tuple[socket.socket, socket.socket]:
        tcp = socket.create_server(("0.0.0.0", _PORT))
        other = socket.create_server(("0.0.0.0", _PORT + 1))
        return tcp, other

    listening, other = machine.inside("server", answer)
    descriptor = os.open(machine.named / "node", os.O_RDONLY)
    linux.setns(descriptor, linux.CLONE_NEWNET)
    links, backend = made_links()
    translate("10.77", _PORT, "10.9.0.2")
    residence = given(links, machine, 0, "d0")
    links.move(0, residence.opened, backend)
    backend.apply(_TICK)

    def call(address: tuple[str, int]) -> str:
        try:
            with socket.create_connection(address, timeout=3) as client:
                client.sendall(b"hello")
                return "connected"
        except OSError as error:
            return type(error).__name__

    seen = {"server": machine.inside("d0", lambda: call(("10.77.0.1", _PORT)))}
    connection, peer = listening.accept()
    seen["heard"], seen["peer"] = connection.recv(16).decode(), peer[0]
    seen["other port"] = machine.inside("d0", lambda: call(("10.77.0.1", _PORT + 1)))
    seen["past it"] = machine.inside("d0", lambda: call(("10.9.0.2", _PORT)))
    other.close()
    backend.close()
    return seen


@pytest.mark.usefixtures("_needs_sandbox")
def test_a_link_is_the_only_way_out_and_leads_to_the_server_alone() -> None:
    sealed, led = in_sandboxes([sealed_and_closed, led_on])
    assert sealed["before"] == {"lo": True, "eth0": True}
    assert sealed["sealed"] == ["eth0"]
    assert sealed["after"] == {"lo": True, "eth0": False, "fl0": True}
    assert sealed["again"] is None
    assert "in one network namespace" in sealed["refused"]
    assert sealed["crossed"] == (0, b"early")  # it waited at the closed gate
    assert (led["server"], led["heard"], led["peer"]) == ("connected", "hello", "10.9.0.1")
    assert led["other port"] == "ConnectionRefusedError"
    assert led["past it"] == "OSError"
