"""What happens to links with names; run in a network, a mount table and a /run of its own.

Prints what was observed as one JSON object.
"""

import fcntl
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from fadelab.exit_codes import FadelabError
from fadelab.link import named
from fadelab_emulation import linux
from fadelab_emulation.namespaces import in_new_thread

RATES = ("--rate-up", "5e6", "--rate-down", "5e6")
seen: dict[str, Any] = {}


def inside(name: str, action: Callable[[], Any]) -> Any:
    def enter() -> Any:
        with (named.RUN_DIR / name).open() as namespace:
            linux.setns(namespace.fileno(), linux.CLONE_NEWNET)
        return action()

    return in_new_thread(enter)


def interfaces() -> dict[str, list[str]]:
    return {
        name: sorted(x for _, x in inside(name, socket.if_nameindex) if x != "lo")
        for name in ("fadelab-lab", "fadelab-lab-0", "fadelab-lab-1")
    }


def drive(*options: str) -> "subprocess.Popen[str]":
    """Start to drive the links and return once they are up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fadelab", "link", "drive", "lab", *RATES, *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line == "the links of lab are up\n", line + process.stderr.read()
    return process


def end(process: "subprocess.Popen[str]", number: int) -> int:
    process.send_signal(number)
    process.communicate(timeout=30)
    return process.returncode


def refusal(action: Callable[[], object]) -> str:
    try:
        action()
    except FadelabError as error:
        return str(error)
    return "not refused"


def hold(name: str) -> None:
    with named.hold(name):
        pass


def message_from_device_1() -> str:
    """Send a line over device 1's link to the server's end."""
    listening: socket.socket = inside(
        "fadelab-lab", lambda: socket.create_server(("10.77.0.1", 7000))
    )
    listening.settimeout(10)
    client: socket.socket = inside(
        "fadelab-lab-1", lambda: socket.create_connection(("10.77.0.1", 7000), timeout=10)
    )
    with listening, client:
        client.sendall(b"hello")
        server, (address, _) = listening.accept()
        with server:
            return f"{server.recv(5).decode()} from {address}"


def make_foreign() -> None:
    path = named.RUN_DIR / "fadelab-foreign"
    path.touch()
    linux.unshare(linux.CLONE_NEWNET)
    linux.mount("/proc/thread-self/ns/net", str(path), "none", linux.MS_BIND)


def wait_until_nobody_drives() -> None:
    """Wait for the end of the last process that inherited the lock."""
    with (named.RUN_DIR / "fadelab-lab").open() as hub:
        fcntl.flock(hub, fcntl.LOCK_EX)


linux.mount("none", "/run", "tmpfs", 0)
named.create("lab", 2)
seen["listed"] = [one.as_json() for one in named.listing()]
seen["created"] = interfaces()
seen["twice"] = refusal(lambda: named.create("lab", 2))

driving = drive()
seen["driven"] = interfaces()
seen["driven_state"] = named.listing()[0].driven
seen["delete_while_driven"] = refusal(lambda: named.delete("lab"))
seen["drive_while_driven"] = refusal(lambda: hold("lab"))
seen["message"] = message_from_device_1()
seen["interrupted"] = end(driving, signal.SIGINT)
seen["after_interrupt"] = interfaces()

# Closed by rejection: what a killed process leaves would refuse packets of the next one's links.
end(drive("--window", "reject", "--outage", "0:1000"), signal.SIGKILL)
wait_until_nobody_drives()
seen["after_kill"] = interfaces()
driving = drive("--duration", "1")
seen["message_after_kill"] = message_from_device_1()
driving.communicate(timeout=30)
seen["over"] = driving.returncode
seen["after_duration"] = interfaces()

in_new_thread(make_foreign)
seen["foreign"] = [refusal(lambda: named.delete("foreign")), refusal(lambda: hold("foreign"))]
seen["own"] = named.own_names()
for name in named.own_names():
    named.delete(name)
seen["left"] = sorted(path.name for path in named.RUN_DIR.iterdir())
json.dump(seen, sys.stdout)
