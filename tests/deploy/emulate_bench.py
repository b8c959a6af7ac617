"""A machine in a sandbox: named namespaces, processes in them, and `fadelab emulate` beside."""

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fadelab.emulate.config import load_emulation
from fadelab.emulate.process import run_emulation
from fadelab.exit_codes import FadelabError
from fadelab_emulation import linux
from fadelab_emulation.attach.interfaces import list_disciplines, list_interfaces
from fadelab_emulation.namespaces import in_new_thread
from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.message import NetlinkSocket

sys.path.insert(0, str(Path(__file__).parents[1] / "emulation"))

import sandboxed
from sandboxed import Flow

__all__ = [
    "Emulation",
    "Flow",
    "Machine",
    "NotDrivingError",
    "in_sandbox",
    "in_sandboxes",
    "steady",
]

Result = TypeVar("Result")
_READY_S = 20.0


def steady(rate_bps: float, **radio: object) -> dict[str, object]:
    """Return a radio section of fixed rates in both directions."""
    return {
        "mobility": {"kind": "static", "placement": {"kind": "uniform"}},
        "rate": {"kind": "fixed", "rate_up_bps": rate_bps, "rate_down_bps": rate_bps},
        **radio,
    }


def in_sandbox(body: Callable[..., Result], *arguments: Any) -> Result:
    """Return ``body(*arguments)`` computed in a sandbox; it may run emulations, which use gRPC."""
    return in_sandboxes([partial(body, *arguments)])[0]


def in_sandboxes(bodies: Sequence[Callable[[], Result]]) -> list[Result]:
    """Return what each body computes in a sandbox of its own, all of them at the same time."""
    return sandboxed.in_sandboxes(bodies, clean=True)


class NotDrivingError(Exception):
    """An emulation ended before it drove anything: its exit code and its last words."""


class Machine:
    """A sandbox with /run of its own, in which namespaces can have names."""

    def __init__(self) -> None:
        linux.mount("none", "/run", "tmpfs", 0)
        self.named = Path("/run/netns")
        self.named.mkdir()
        self.folder = Path("/run/test")
        self.folder.mkdir()
        self._records = 0

    def add_namespace(self, name: str) -> Path:
        """Do what `ip netns add` does, and bring its loopback interface up."""
        path = self.named / name
        path.touch()

        def make() -> None:
            linux.unshare(linux.CLONE_NEWNET)
            linux.mount("/proc/thread-self/ns/net", str(path), "none", linux.MS_BIND)
            with NetlinkSocket() as netlink:
                netlink.change([links.set_up(links.LOOPBACK_INDEX)])

        in_new_thread(make)
        return path

    def inside(self, name: str, action: Callable[[], Result]) -> Result:
        """Return what ``action`` sees in a named namespace."""

        def enter() -> Result:
            descriptor = os.open(self.named / name, os.O_RDONLY)
            try:
                linux.setns(descriptor, linux.CLONE_NEWNET)
            finally:
                os.close(descriptor)
            return action()

        return in_new_thread(enter)

    def add_veth(self, one: str, other: str, index: int = 7) -> None:
        """Join two namespaces by a plain veth pair, 10.9.0.1 and 10.9.0.2, both ends eth0."""
        here = links.VethEnd("eth0", index, bytes.fromhex("020000000001"))
        there = links.VethEnd("eth0", index, bytes.fromhex("020000000002"))
        descriptor = os.open(self.named / other, os.O_RDONLY)

        def make(create: bool, own: str, its: str) -> None:
            with NetlinkSocket() as netlink:
                if create:
                    netlink.change([links.create_veth(here, there, descriptor)])
                netlink.change(
                    [
                        links.set_up(index),
                        links.add_address(index, own),
                        links.add_route(index, its, own),
                    ]
                )

        self.inside(one, lambda: make(True, "10.9.0.1", "10.9.0.2"))
        self.inside(other, lambda: make(False, "10.9.0.2", "10.9.0.1"))
        os.close(descriptor)

    def interfaces(self, name: str) -> list[str]:
        """Return the names of a namespace's interfaces."""

        def look() -> list[str]:
            with NetlinkSocket() as netlink:
                return sorted(one.name for one in list_interfaces(netlink))

        return self.inside(name, look)

    def state_of(self, name: str, interface: str) -> dict[str, Any]:
        """Return everything about an interface that an emulation might change."""

        def look() -> dict[str, Any]:
            with NetlinkSocket() as netlink:
                (one,) = [one for one in list_interfaces(netlink) if one.name == interface]
                disciplines = list_disciplines(netlink, one.index)
                return {
                    "interface": repr(one),
                    "disciplines": sorted(repr(discipline) for discipline in disciplines),
                }

        return self.inside(name, look)

    def udp(self, name: str, address: str, port: int = 0) -> socket.socket:
        """Return a bound UDP socket in a namespace."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            made.bind((address, port))
            made.settimeout(3)
            return made

        return self.inside(name, make)

    def tcp_pair(
        self, client: str, server: str, address: str
    ) -> tuple[socket.socket, socket.socket]:
        """Return the two ends of a connection."""
        listener = self.inside(server, lambda: socket.create_server((address, 0)))
        connecting = self.inside(client, socket.socket)
        connecting.settimeout(10)
        with listener:
            connecting.connect(listener.getsockname())
            accepted, _ = listener.accept()
        return connecting, accepted

    def file(self, **content: object) -> Path:
        """Write a file for `fadelab emulate`."""
        self._records += 1
        path = self.folder / f"emulation-{self._records}.yaml"
        content = {"record": str(self.folder / f"record-{self._records}"), **content}
        path.write_text(yaml.safe_dump(content))
        return path

    @contextmanager
    def emulating(self, **content: object) -> Iterator["Emulation"]:
        """Run an emulation beside the block; SIGTERM ends it unless it has ended."""
        emulation = Emulation(self.file(**content))
        try:
            yield emulation
        finally:
            emulation.end()


class Emulation:
    """`fadelab emulate` in a process of its own, which is ready when this is made."""

    def __init__(self, path: Path) -> None:
        self.record = Path(yaml.safe_load(path.read_text())["record"])
        self.said: list[str] = []
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _child(path, writer)
        os.close(writer)
        self.code: int | None = None
        self._lines = os.fdopen(reader)
        self.await_line("driving")

    def await_line(self, beginning: str) -> str:
        """Return the next line that begins so; an error that ended the emulation is raised."""
        for line in self._lines:
            self.said.append(line.strip())
            if line.startswith(beginning):
                return line.strip()
        self.end()
        raise NotDrivingError(self.code, " ".join(self.said))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what was logged under a name."""
        lines = (self.record / "events" / "emulator-0.jsonl").read_text().splitlines()
        return [event for line in lines if (event := json.loads(line))["event"] == name]

    def await_end(self) -> None:
        """Wait for an emulation that ends by itself."""
        self.said += [line.strip() for line in self._lines]
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """End it as nobody should."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit code, negative for a signal."""
        if self.code is None:
            os.kill(self.pid, number)
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
            self.said += [line.strip() for line in self._lines]
        return self.code


def _child(path: Path, writer: int) -> None:
    signal.alarm(0)

    def tell(sentence: str) -> None:
        os.write(writer, f"{sentence}\n".encode())

    code = 99
    try:
        code = 0 if run_emulation(load_emulation(path), tell) else 130
    except FadelabError as error:
        tell(str(error))
        code = error.code
    except BaseException as error:  # noqa: BLE001 -- shall be seen
        tell(f"{type(error).__name__}: {error}")
        traceback.print_exc()
    os._exit(code)
