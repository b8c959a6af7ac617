"""Interfaces that exist: shaped at one end, and restored as they were."""

import socket
import time
from functools import partial
from typing import Any

import pytest
from emulate_bench import (
    Emulation,
    Flow,
    Machine,
    NotDrivingError,
    in_sandbox,
    in_sandboxes,
    steady,
)

from fadelab_emulation.netlink import filters, links, traffic
from fadelab_emulation.netlink.message import NetlinkSocket, unsigned

pytestmark = pytest.mark.namespaces

FRAME_SHARE = 1514 / 1472
"""Of a frame to the payload of a full datagram."""
_RATE_BPS = 4e6
_INDEX = 7
_ETH0 = {"devices": [{"netns": "d0", "attach": "eth0"}]}


def furnished() -> Machine:
    """Return a device and a server whose interfaces are as a container's: no queue length."""
    machine = Machine()
    for name in ("server", "d0"):
        machine.add_namespace(name)
    machine.add_veth("d0", "server", _INDEX)
    for name in ("server", "d0"):
        machine.inside(name, as_a_container)
    return machine


def as_a_container() -> None:
    alter(links.IFLA_TXQLEN, 0)
    alter(links.IFLA_GSO_MAX_SEGS, 65535)


def alter(attribute: int, value: int) -> None:
    """Change eth0 in the calling thread's namespace."""
    body = links.set_up(_INDEX).body + unsigned(attribute, value)
    with NetlinkSocket() as netlink:
        netlink.change([links.set_up(_INDEX)._replace(body=body)])


def rates_and_rest() -> dict[str, Any]:
    machine = furnished()
    seen: dict[str, Any] = {"before": machine.state_of("d0", "eth0")}
    with machine.emulating(radio=steady(_RATE_BPS), **_ETH0) as emulation:
        seen["while"] = machine.interfaces("d0")
        at_server = machine.udp("server", "10.9.0.2", 5000)
        at_device = machine.udp("d0", "10.9.0.1", 5000)
        at_server.connect(("10.9.0.1", 5000))
        at_device.connect(("10.9.0.2", 5000))
        flows = [Flow(at_device, at_server), Flow(at_server, at_device)]
        time.sleep(0.3)
        start_s = time.monotonic()
        time.sleep(0.8)
        seen["rates"] = [FRAME_SHARE * flow.rate_between(start_s, start_s + 0.8) for flow in flows]
        for flow in flows:
            flow.stop()
        seen["code"] = emulation.end()
        (seen["account"],) = emulation.events("link_account")
    seen["after"] = machine.state_of("d0", "eth0")
    seen["left"] = machine.interfaces("d0")
    return seen


def test_an_attached_interface_obeys_in_both_directions_and_is_restored() -> None:
    seen = in_sandbox(rates_and_rest)
    for rate_bps in seen["rates"]:
        # A busy machine serves a link late, never early; conformance tests judge the accuracy.
        assert 0.7 * _RATE_BPS < rate_bps < 1.03 * _RATE_BPS
    for way in ("up", "down"):
        achieved, programmed = (
            seen["account"][f"{way}_{what}_bytes"] for what in ("achieved", "programmed")
        )
        assert 0.7 * programmed < achieved < 1.03 * programmed
        assert seen["account"][f"{way}_wire_bytes"] > achieved
    assert seen["while"] == ["eth0", f"fl-in{_INDEX}", "lo"]
    assert seen["code"] == 0
    assert seen["left"] == ["eth0", "lo"]
    assert seen["before"] == seen["after"]
    assert "noqueue" in seen["after"]["disciplines"][0]


def bundles() -> tuple[float, int, int]:
    """Have the far end send bundles of 64 KiB over TCP; return rate and size of what comes."""
    machine = furnished()
    with machine.emulating(radio=steady(_RATE_BPS), **_ETH0) as emulation:
        client, server = machine.tcp_pair("d0", "server", "10.9.0.2")
        flow = Flow(server, client)
        time.sleep(1.5)
        flow.stop()
        emulation.end()
        (account,) = emulation.events("link_account")
    largest = account["down_wire_bytes"] / account["down_wire_packets"]
    return largest, account["down_achieved_bytes"], account["down_programmed_bytes"]


def test_bundles_of_frames_are_cut_before_they_are_shaped() -> None:
    mean_bytes, achieved, programmed = in_sandbox(bundles)
    assert mean_bytes <= 1514
    assert 0.7 * programmed < achieved < 1.03 * programmed


def one_outage(mode: str, uplink: bool) -> list[float]:
    """Send small datagrams all the time; return how many came before, in and after an outage."""
    machine = furnished()
    radio = steady(_RATE_BPS, window=mode, outages=[{"windows_s": [[0.5, 1.0]]}])
    with machine.emulating(radio=radio, duration_s=1.5, **_ETH0) as emulation:
        start_s = time.monotonic()
        at_server = machine.udp("server", "10.9.0.2", 5000)
        at_device = machine.udp("d0", "10.9.0.1", 5000)
        at_server.connect(("10.9.0.1", 5000))
        at_device.connect(("10.9.0.2", 5000))
        ends = (at_device, at_server)
        sender, receiver = ends if uplink else ends[::-1]
        receiver.settimeout(0.01)
        arrivals: list[float] = []
        while time.monotonic() < start_s + 1.3:
            sender.send(bytes(100))
            try:
                while True:
                    receiver.recv(200)
                    arrivals.append(time.monotonic())
            except TimeoutError:
                continue
        emulation.await_end()
        closed, opened = (
            emulation.events(name)[-1]["applied_mono_s"]
            for name in ("contact_closed", "contact_opened")
        )
        (account,) = emulation.events("link_account")
    return [
        sum(at < closed for at in arrivals),
        sum(closed + 0.02 < at < opened - 0.02 for at in arrivals),
        sum(opened - 0.02 <= at < opened + 0.05 for at in arrivals),
        account["up_leaked_packets"] + account["down_leaked_packets"],
    ]


def test_closed_windows_hold_or_drop_at_one_end() -> None:
    cases = [(mode, uplink) for mode in ("hold", "drop") for uplink in (True, False)]
    bodies = [partial(one_outage, *case) for case in cases]
    for (mode, _), seen in zip(cases, in_sandboxes(bodies), strict=True):
        before, during, at_once, leaked = seen
        assert before > 5
        assert during == leaked == 0
        assert at_once >= 20 if mode == "hold" else at_once < 15


def sent_into_a_closed_window() -> tuple[int, list[int]]:
    """Return what a program is told of datagrams that vanish, and which come afterwards."""
    machine = furnished()
    radio = steady(64e3, window="drop", outages=[{"windows_s": [[0.5, 1.1]]}])
    with machine.emulating(radio=radio, duration_s=1.8, **_ETH0) as emulation:
        receiver = machine.udp("server", "10.9.0.2", 5000)
        sender = machine.udp("d0", "10.9.0.1", 5000)
        sender.connect(("10.9.0.2", 5000))
        begin_s = time.monotonic()
        time.sleep(0.2)
        # At 64 kbit/s these take 0.8 s: some are in the queue when the window closes.
        for number in range(8):
            sender.send(bytes([number]) + bytes(1000))
        time.sleep(max(0.0, begin_s + 0.7 - time.monotonic()))
        refused = sum(sender.send(bytes([100])) != 1 for _ in range(20))
        emulation.await_end()
    receiver.settimeout(0.1)
    numbers: list[int] = []
    try:
        while True:
            numbers.append(receiver.recv(2000)[0])
    except TimeoutError:
        return refused, numbers


def test_dropping_tells_senders_nothing_and_empties_the_queue() -> None:
    refused, numbers = in_sandbox(sent_into_a_closed_window)
    assert refused == 0
    assert 100 not in numbers
    # What was sent before the window and had not left the queue by then is gone as well.
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < 8


def killed_and_started_again() -> dict[str, Any]:
    machine = furnished()
    before = machine.state_of("d0", "eth0")
    emulation = Emulation(machine.file(radio=steady(_RATE_BPS, window="drop"), **_ETH0))
    emulation.kill()
    seen = {"left": machine.interfaces("d0")}
    seen["as_before"] = machine.state_of("d0", "eth0") == before
    with machine.emulating(radio=steady(_RATE_BPS), **_ETH0) as again:
        seen["said"] = again.said
        try:
            Emulation(machine.file(radio=steady(_RATE_BPS), **_ETH0))
        except NotDrivingError as refusal:
            seen["second"] = refusal.args
    seen["restored"] = machine.state_of("d0", "eth0") == before
    seen["after"] = machine.interfaces("d0")
    return seen


def test_what_a_killed_emulation_shaped_is_restored_by_the_next() -> None:
    seen = in_sandbox(killed_and_started_again)
    assert seen["left"] == ["eth0", f"fl-in{_INDEX}", "lo"]
    assert not seen["as_before"]
    assert seen["said"][0].startswith("removed eth0 in the network namespace d0")
    code, sentence = seen["second"]
    assert code == 2
    assert "carries the queueing discipline tbf 1:" in sentence
    assert seen["restored"]
    assert seen["after"] == ["eth0", "lo"]


def shaped_by_others(kind: str) -> None:
    with NetlinkSocket() as netlink:
        if kind == "clsact":
            netlink.change([filters.add_ingress_hook(_INDEX)])
        else:
            netlink.change(
                [
                    traffic.add_tbf(
                        traffic.open_tbf(_INDEX, 0x50000, rate_bps=10**9, burst_bytes=9999)
                    )
                ]
            )


def refusals() -> list[tuple[str, bool]]:
    machine = furnished()
    machine.add_namespace("filtered")
    machine.add_namespace("far")
    machine.add_veth("filtered", "far", _INDEX)
    machine.inside("filtered", lambda: shaped_by_others("clsact"))
    machine.inside("far", lambda: shaped_by_others("tbf"))
    for name in ("large", "larger"):
        machine.add_namespace(name)
    machine.add_veth("large", "larger", _INDEX)
    machine.inside("large", lambda: alter(links.IFLA_MTU, 9000))
    good = {"netns": "d0", "attach": "eth0"}
    before = machine.state_of("d0", "eth0")
    said = []
    for second in (
        {"netns": "server", "attach": "eth5"},
        {"netns": "server", "attach": "lo"},
        {"netns": "filtered", "attach": "eth0"},
        {"netns": "far", "attach": "eth0"},
        {"netns": "large", "attach": "eth0"},
        {"attach": "lo"},
        good,
    ):
        try:
            Emulation(machine.file(radio=steady(_RATE_BPS), devices=[good, second])).end()
            said.append(("it was not refused", False))
        except NotDrivingError as refusal:
            same = machine.state_of("d0", "eth0") == before
            said.append((f"{refusal.args[0]} {refusal.args[1]}", same))
    return said


def test_attach_refusals_are_one_sentence_each_and_change_nothing() -> None:
    said = in_sandbox(refusals)
    expected = [
        "2 the network namespace server has no interface eth5; it has: lo, eth0",
        "2 lo in the network namespace server is the loopback interface",
        "2 eth0 in the network namespace filtered carries filters (clsact) that somebody else",
        "2 eth0 in the network namespace far carries the queueing discipline tbf 5:",
        "2 eth0 in the network namespace large has an MTU of 9000 bytes",
        "2 the network of this command is the machine's own network",
        "2 eth0 in the network namespace d0 is given to two devices",
    ]
    for (sentence, unchanged), beginning in zip(said, expected, strict=True):
        assert sentence.startswith(beginning)
        assert unchanged


def interface_removed_meanwhile() -> tuple[int | None, str, list[str]]:
    machine = furnished()
    with machine.emulating(radio=steady(_RATE_BPS), **_ETH0) as emulation:

        def remove() -> None:
            with NetlinkSocket() as netlink:
                netlink.change([links.delete_link(_INDEX)])

        machine.inside("d0", remove)
        emulation.await_end()
        return emulation.code, emulation.said[-1], machine.interfaces("d0")


def test_an_interface_that_goes_away_ends_the_emulation_in_a_sentence() -> None:
    code, sentence, left = in_sandbox(interface_removed_meanwhile)
    assert code == 6
    assert "No such device: an interface of the links is gone" in sentence
    assert left == ["lo"]


def machines_own_interface() -> tuple[int, bool]:
    """Shape an interface of the network that the sandbox itself lives in, because it is said so."""
    machine = Machine()
    machine.add_namespace("there")
    with (machine.named / "there").open() as there, NetlinkSocket() as netlink:
        here = links.VethEnd("uplink", 9, bytes.fromhex("020000000005"))
        peer = links.VethEnd("eth0", 9, bytes.fromhex("020000000006"))
        netlink.change([links.create_veth(here, peer, there.fileno())])
    with machine.emulating(
        radio=steady(_RATE_BPS), devices=[{"attach": "uplink"}], allow_host=True
    ) as emulation:
        shaped = "fl-in9" in [name for _, name in socket.if_nameindex()]
        return emulation.end(), shaped


def test_the_machines_own_network_can_be_allowed() -> None:
    assert in_sandbox(machines_own_interface) == (0, True)
