"""New links between namespaces that have names: what they carry, and what is left of them."""

import os
import socket
import time
from functools import partial
from pathlib import Path
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

from fadelab.local.probe import leftovers
from fadelab_emulation.attach.journal import remove_leftovers
from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.message import NetlinkSocket

pytestmark = pytest.mark.namespaces

FRAME_SHARE = 1514 / 1472
"""Of a frame to the payload of a full datagram."""
_RATE_BPS = 4e6
_MANY = {"server": {"netns": "server"}, "devices": [{"netns": "d0"}, {"netns": "d1"}]}
_ONE = {"server": {"netns": "server"}, "devices": [{"netns": "d0"}]}


def furnished() -> Machine:
    machine = Machine()
    for name in ("server", "d0", "d1"):
        machine.add_namespace(name)
    return machine


def everything(machine: Machine) -> list[list[str]]:
    return [machine.interfaces(name) for name in ("server", "d0", "d1")]


def datagrams(
    machine: Machine, sender: tuple[str, str], receiver: tuple[str, str]
) -> tuple[socket.socket, socket.socket]:
    """Return a connected sender and a receiver, each given by namespace and address."""
    to, sent_from = machine.udp(*receiver), machine.udp(*sender)
    sent_from.connect(to.getsockname())
    return sent_from, to


def rates_and_rest() -> dict[str, Any]:
    machine = furnished()
    seen: dict[str, Any] = {"before": everything(machine)}
    devices = [{"netns": "d0"}, {"netns": "d1", "interface": "wlan7"}]
    content = {"server": {"netns_path": "/run/netns/server"}, "devices": devices}
    with machine.emulating(radio=steady(_RATE_BPS), network="10.99", **content) as emulation:
        seen["while"] = everything(machine)
        up = datagrams(machine, ("d1", "10.99.1.2"), ("server", "10.99.0.1"))
        down = datagrams(machine, ("server", "10.99.0.1"), ("d0", "10.99.1.1"))
        flows = [Flow(*up), Flow(*down)]
        time.sleep(0.3)
        start_s = time.monotonic()
        time.sleep(0.8)
        end_s = time.monotonic()
        seen["rates"] = [FRAME_SHARE * flow.rate_between(start_s, end_s) for flow in flows]
        for flow in flows:
            flow.stop()
        seen["code"] = emulation.end()
        seen["recorded"] = sorted(path.name for path in emulation.record.iterdir())
        (ready,) = emulation.events("links_ready")
        seen["places"] = ready["places"]
        seen["wire"] = [e["up_wire_packets"] for e in emulation.events("link_account")]
    seen["after"] = everything(machine)
    return seen


def test_star_links_carry_what_is_programmed_and_leave_nothing() -> None:
    seen = in_sandbox(rates_and_rest)
    for rate_bps in seen["rates"]:
        # A busy machine serves a link late, never early; conformance tests judge the accuracy.
        assert 0.7 * _RATE_BPS < rate_bps < 1.03 * _RATE_BPS
    assert seen["while"] == [["fl0", "fl1", "lo"], ["fl0", "lo"], ["lo", "wlan7"]]
    assert seen["before"] == seen["after"] == [["lo"]] * 3
    assert seen["code"] == 0
    assert seen["recorded"] == ["emulation.json", "events", "links.achieved", "links.schedule"]
    assert seen["places"] == ["the network namespace d0", "the network namespace d1"]
    assert seen["wire"][1] > 0


def one_outage(mode: str) -> list[float]:
    """Send numbered datagrams all the time; return when those arrived that arrived, in order."""
    machine = furnished()
    radio = steady(_RATE_BPS, window=mode, outages=[{"windows_s": [[0.5, 1.0]]}])
    with machine.emulating(radio=radio, duration_s=1.5, **_ONE) as emulation:
        start_s = time.monotonic()
        sender, receiver = datagrams(machine, ("d0", "10.77.1.1"), ("server", "10.77.0.1"))
        receiver.settimeout(0.2)
        arrivals: list[float] = []
        while time.monotonic() < start_s + 1.3:
            try:
                sender.send(bytes(100))
                receiver.settimeout(0.01)
                while True:
                    receiver.recv(200)
                    arrivals.append(time.monotonic())
            except OSError:
                continue
        emulation.await_end()
        assert emulation.code == 0
        closed, opened = (
            emulation.events(name)[-1]["applied_mono_s"]
            for name in ("contact_closed", "contact_opened")
        )
        leaks = [event["up_leaked_packets"] for event in emulation.events("link_account")]
    before = sum(at < closed for at in arrivals)
    during = sum(closed + 0.02 < at < opened - 0.02 for at in arrivals)
    at_once = sum(opened - 0.02 <= at < opened + 0.05 for at in arrivals)
    return [before, during, at_once, *leaks]


def test_closed_windows_let_nothing_pass_in_every_mode() -> None:
    modes = ("hold", "drop", "down")
    for mode, seen in zip(
        modes, in_sandboxes([partial(one_outage, m) for m in modes]), strict=True
    ):
        before, during, at_once, leaked = seen
        assert before > 5
        assert during == leaked == 0
        assert at_once >= 20 if mode == "hold" else at_once < 15


def killed_and_started_again() -> dict[str, Any]:
    machine = furnished()
    emulation = Emulation(machine.file(radio=steady(_RATE_BPS), **_MANY))
    emulation.kill()
    seen = {"left": everything(machine)}
    with machine.emulating(radio=steady(_RATE_BPS), **_ONE) as again:
        seen["said"] = again.said
        seen["while"] = everything(machine)
        try:
            Emulation(machine.file(radio=steady(_RATE_BPS), **_ONE))
        except NotDrivingError as refusal:
            seen["second"] = refusal.args
    seen["after"] = everything(machine)
    return seen


def test_what_a_killed_emulation_left_is_removed_by_the_next() -> None:
    seen = in_sandbox(killed_and_started_again)
    assert seen["left"] == [["fl0", "fl1", "lo"], ["fl0", "lo"], ["fl0", "lo"]]
    removed = [line for line in seen["said"] if line.startswith("removed")]
    assert removed == [
        f"removed fl{n} in the network namespace server, left behind by a killed `fadelab emulate`"
        for n in (0, 1)
    ]
    assert seen["while"] == [["fl0", "lo"], ["fl0", "lo"], ["lo"]]
    code, sentence = seen["second"]
    assert code == 2
    assert "another `fadelab emulate`'s, which is running" in sentence
    assert seen["after"] == [["lo"]] * 3


def seen_by_doctor() -> list[list[str]]:
    """Return which links seem left behind: of a living emulation, of a killed one, afterwards."""
    machine = furnished()
    content = _ONE | {"server": {"pid": os.getpid()}, "allow_host": True}
    emulation = Emulation(machine.file(radio=steady(_RATE_BPS), **content))

    def links_left() -> list[str]:
        return [item for item in leftovers() if item.startswith("link")]

    seen = [links_left()]
    emulation.kill()
    removed = remove_leftovers()
    return [*seen, removed, links_left(), machine.interfaces("d0")]


def test_doctor_tells_links_of_the_living_from_those_of_the_dead() -> None:
    living, removed, left, at_device = in_sandbox(seen_by_doctor)
    assert living == left == []
    assert [line.rpartition(" ")[0] for line in removed] == ["fl0 in the process"]
    assert at_device == ["lo"]


def refusals() -> list[tuple[str, list[str]]]:
    """Return what is said to each of several files, and what each has left behind."""
    machine = furnished()
    machine.add_veth("d1", "server")
    (machine.folder / "no-namespace").touch()
    there = [*everything(machine)]
    servers: list[dict[str, Any]] = [
        _ONE | {"server": {"netns": "nowhere"}},
        _ONE | {"server": {"netns_path": "/run/test/no-namespace"}},
        _ONE | {"server": {"pid": 1 << 22}},
        _ONE | {"server": {"pid": 1}},
        _ONE | {"server": {"netns": "d0"}},
        {"server": {"netns": "server"}, "devices": [{"netns": "d0"}, {"netns": "d0"}]},
        {"server": {"netns": "server"}, "devices": [{"netns": "d1", "interface": "eth0"}]},
        _ONE | {"record": "/run/test"},
        _ONE | {"record": "/run/test/no-namespace/below"},
    ]
    said = []
    for content in servers:
        try:
            Emulation(machine.file(radio=steady(_RATE_BPS), **content)).end()
            said.append("it was not refused")
        except NotDrivingError as refusal:
            said.append(f"{refusal.args[0]} {refusal.args[1]}")
    same = everything(machine) == there
    return [(sentence, same) for sentence in said]


def test_star_refusals_are_one_sentence_each_and_change_nothing() -> None:
    said = in_sandbox(refusals)
    expected = [
        "2 there is no network namespace nowhere; /run/netns has: d0, d1, server",
        "2 the network namespace /run/test/no-namespace: /run/test/no-namespace is not a network",
        "2 there is no process 4194304: /proc/4194304/ns/net does not exist",
        "2 the process 1 is the machine's own network, on which everything else depends",
        "2 the network namespace d0 and the network namespace d0 are one network namespace",
        "2 the network namespace d0 and the network namespace d0 are one network namespace",
        "2 the network namespace d1 has an interface eth0 already, and it is not Fadelab's",
        "2 record: /run/test exists already; recordings are not overwritten",
        "2 record: cannot make /run/test/no-namespace/below: Not a directory",
    ]
    for (sentence, unchanged), beginning in zip(said, expected, strict=True):
        assert sentence.startswith(beginning)
        assert unchanged


def half_applied() -> tuple[str, list[list[str]], list[str]]:
    """Have the kernel refuse the last of several links."""
    machine = furnished()
    taken = 400_001

    def take_index() -> None:
        here = links.VethEnd("other", taken, bytes.fromhex("020000000003"))
        there = links.VethEnd("pair", 9, bytes.fromhex("020000000004"))
        with NetlinkSocket() as netlink, Path("/proc/thread-self/ns/net").open() as own:
            netlink.change([links.create_veth(here, there, own.fileno())])

    machine.inside("d1", take_index)
    try:
        Emulation(machine.file(radio=steady(_RATE_BPS), **_MANY))
    except NotDrivingError as refusal:
        journals = [path.name for path in machine.folder.parent.glob("fadelab/*")]
        return f"{refusal.args[0]} {refusal.args[1]}", everything(machine), journals
    raise AssertionError("it was not refused")


def test_a_link_that_the_kernel_refuses_takes_the_others_back() -> None:
    said, interfaces, journals = in_sandbox(half_applied)
    assert said.startswith("4 cannot create veth fl1")
    assert interfaces == [["lo"], ["lo"], ["lo", "other", "pair"]]
    assert journals == []


def delayed() -> dict[str, Any] | str:
    """Return round trips over a delayed link and what it leaves, or why there is none."""
    machine = furnished()
    radio = steady(_RATE_BPS, delay_up_s=0.02, delay_down_s=0.01, packet_loss_up=0.0)
    try:
        emulation = Emulation(machine.file(radio=radio, **_ONE))
    except NotDrivingError as refusal:
        return str(refusal.args[1])
    sender, receiver = datagrams(machine, ("d0", "10.77.1.1"), ("server", "10.77.0.1"))
    receiver.connect(sender.getsockname())
    trips_s = []
    for _ in range(20):
        start_s = time.monotonic()
        sender.send(b"there")
        receiver.recv(100)
        receiver.send(b"and back")
        sender.recv(100)
        trips_s.append(time.monotonic() - start_s)
    seen: dict[str, Any] = {"trips_s": sorted(trips_s), "while": everything(machine)}
    emulation.kill()
    seen["left"] = everything(machine)
    with machine.emulating(radio=radio, **_ONE) as again:
        seen["said"] = again.said
    seen["after"] = everything(machine)
    return seen


def test_delays_are_carried_out_and_their_lines_removed() -> None:
    seen = in_sandbox(delayed)
    if isinstance(seen, str):
        assert "sch_netem" in seen
        pytest.skip("needs sch_netem")
    assert 0.0299 < seen["trips_s"][0] < 0.036
    lines = [["delay500000", "fl0", "lo"], ["delay400000", "fl0", "lo"], ["lo"]]
    assert seen["while"] == seen["left"] == lines
    assert sum(line.startswith("removed") for line in seen["said"]) == 3
    assert seen["after"] == [["lo"]] * 3
