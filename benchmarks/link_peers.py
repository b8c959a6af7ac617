"""The same links made and changed by other tools: `tc`, `tc -batch`, pyroute2.

Every peer makes a star of veth pairs, one end in a namespace of its own, with HTB, one class and a
byte queue at both ends: what Fadelab's links have besides their gate. To be called in a sandbox.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pyroute2 import IPRoute, NetNS, netns

from fadelab_emulation import linux

_BURST = 3028
_QUEUE = 37_500


class PeerFigures(NamedTuple):
    """Seconds."""

    make_s: float
    """All namespaces and links."""
    change_one_s: float
    """One rate of one link."""
    change_all_s: float
    """Both rates of all links."""


def prepare_named_namespaces() -> None:
    """Give the tools a folder for namespace names that is this sandbox's own."""
    folder = Path("/run/netns")
    folder.mkdir(exist_ok=True)
    linux.mount("tmpfs", str(folder), "tmpfs", 0)


def measure_tc(devices: int) -> PeerFigures:
    """One process per command."""
    start = time.perf_counter()
    for device in range(devices):
        for command in _make(device):
            _run(command.split())
    make_s = time.perf_counter() - start
    one = _median([_seconds(lambda: _run(_change(0, 6e6)[0].split())) for _ in range(20)])
    start = time.perf_counter()
    for device in range(devices):
        for command in _change(device, 7e6):
            _run(command.split())
    return PeerFigures(make_s, one, time.perf_counter() - start)


def measure_batch(devices: int) -> PeerFigures:
    """`ip -batch` and `tc -batch`: one process per namespace and tool."""
    start = time.perf_counter()
    ip_here, tc_here = [], []
    inside: list[list[list[str]]] = []
    for device in range(devices):
        there: list[list[str]] = [[], []]
        for command in _make(device):
            tool, *words = command.split()
            if words[0] == "-n":
                there[tool == "tc"].append(" ".join(words[2:]))
            else:
                (tc_here if tool == "tc" else ip_here).append(" ".join(words))
        inside.append(there)
    _batch(["ip"], ip_here)
    _batch(["tc"], tc_here)
    for device, (addresses, shapers) in enumerate(inside):
        _batch(["ip", "-n", f"peer{device}"], addresses)
        _batch(["tc", "-n", f"peer{device}"], shapers)
    make_s = time.perf_counter() - start
    hub = _change(0, 6e6)[0].removeprefix("tc ")
    one = _median([_seconds(lambda: _batch(["tc"], [hub])) for _ in range(20)])

    def change_all() -> None:
        changes = [_change(device, 7e6) for device in range(devices)]
        _batch(["tc"], [down.removeprefix("tc ") for down, _ in changes])
        for device, (_, up) in enumerate(changes):
            _batch(["tc", "-n", f"peer{device}"], [up.split(maxsplit=3)[3]])

    return PeerFigures(make_s, one, _seconds(change_all))


def measure_pyroute2(devices: int) -> PeerFigures:
    """pyroute2's own namespaces and messages."""
    start = time.perf_counter()
    hub = IPRoute()
    links = []
    for device in range(devices):
        netns.create(f"peer{device}")
        inside = NetNS(f"peer{device}")
        hub.link(
            "add",
            ifname=f"pv{device}",
            kind="veth",
            peer={"ifname": "eth0", "net_ns_fd": f"peer{device}"},
        )
        here = hub.link_lookup(ifname=f"pv{device}")[0]
        there = inside.link_lookup(ifname="eth0")[0]
        inside.addr("add", index=there, address=_address(device), prefixlen=32)
        for handle, index in ((hub, here), (inside, there)):
            handle.link("set", index=index, state="up")
            handle.tc("add", "htb", index, 0x20000, default=1)
            handle.tc(
                "add-class", "htb", index, 0x20001, parent=0x20000, rate="5mbit", burst=_BURST
            )
            # It knows no byte queue.
            handle.tc("add", "pfifo", index, 0x30000, parent=0x20001, limit=_QUEUE // 1514)
        links.append((inside, here, there))
    make_s = time.perf_counter() - start

    def change(handle: IPRoute, index: int, rate: str) -> None:
        handle.tc("change-class", "htb", index, 0x20001, parent=0x20000, rate=rate, burst=_BURST)

    one = _median([_seconds(lambda: change(hub, links[0][1], "6mbit")) for _ in range(50)])

    def change_all() -> None:
        for inside, here, there in links:
            change(hub, here, "7mbit")
            change(inside, there, "7mbit")

    figures = PeerFigures(make_s, one, _seconds(change_all))
    for inside, _, _ in links:
        inside.close()
    hub.close()
    return figures


def _make(device: int) -> list[str]:
    inside = f"-n peer{device}"
    return [
        f"ip netns add peer{device}",
        f"ip link add pv{device} type veth peer name eth0 netns peer{device}",
        f"ip link set pv{device} up",
        f"ip {inside} addr add {_address(device)}/32 dev eth0",
        f"ip {inside} link set eth0 up",
        *(
            f"tc {where}{what}"
            for where, name in (("", f"pv{device}"), (f"{inside} ", "eth0"))
            for what in (
                f"qdisc add dev {name} root handle 2: htb default 1",
                f"class add dev {name} parent 2: classid 2:1 htb rate 5mbit burst {_BURST}",
                f"qdisc add dev {name} parent 2:1 handle 3: bfifo limit {_QUEUE}",
            )
        ),
    ]


def _change(device: int, rate_bps: float) -> tuple[str, str]:
    """Return the downlink's and the uplink's command."""
    tail = f"parent 2: classid 2:1 htb rate {rate_bps:.0f} burst {_BURST}"
    return (
        f"tc class change dev pv{device} {tail}",
        f"tc -n peer{device} class change dev eth0 {tail}",
    )


def _address(device: int) -> str:
    return f"10.99.{1 + device // 250}.{1 + device % 250}"


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _batch(tool: Sequence[str], lines: Sequence[str]) -> None:
    subprocess.run(
        [*tool, "-batch", "-"], input="\n".join(lines), text=True, check=True, capture_output=True
    )


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
