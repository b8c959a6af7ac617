"""What a run might leave on the machine: interfaces, namespaces, processes."""

import json
import os
import select
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.system.commands import fadelab


@dataclass(frozen=True)
class MachineState:
    """The machine at one moment."""

    network: bytes
    namespaces: frozenset[str]

    @classmethod
    def now(cls) -> "MachineState":
        return cls(host_network(), frozenset(namespaces()))


def check_clean(before: MachineState, after: MachineState) -> None:
    """Hold the machine to what it was, and to what `fadelab doctor` finds of earlier runs."""
    assert after.network == before.network
    assert leftovers() == []
    assert after.namespaces <= before.namespaces


def host_network() -> bytes:
    """The machine's interfaces, addresses, routes and qdiscs, without counters and lifetimes."""
    parts = [Path("/proc/net/route").read_bytes(), Path("/proc/net/if_inet6").read_bytes()]
    for interface in sorted(Path("/sys/class/net").iterdir()):
        for name in ("address", "mtu", "flags", "ifindex", "gso_max_segs", "tx_queue_len"):
            file = interface / name
            if file.exists():
                parts.append(f"{interface.name}/{name}={file.read_text()}".encode())
    return b"\n".join(parts)


def leftovers() -> object:
    done = subprocess.run(
        fadelab("doctor", "--json"), capture_output=True, text=True, check=False, timeout=120
    )
    return json.loads(done.stdout)["leftovers"]


def namespaces() -> set[str]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found.add(str((process / "ns" / "net").readlink()))
            except OSError:
                continue
    return found


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def wait_for_end(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(30_000), "a process of the run outlived its launcher"
    os.close(descriptor)
