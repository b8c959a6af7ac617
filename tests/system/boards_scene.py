"""Boards that are network namespaces: each with an SSH server, a management and a data interface."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tests.system.commands import ON_A_BUSY_MACHINE, QUICKSTART, ROOT, fadelab

sys.path.insert(0, str(ROOT / "tests" / "deploy"))

from emulate_bench import Machine

from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.message import NetlinkSocket

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
SERVER = "10.9.0.1"
_MANAGEMENT = "10.8.0.1"


def problem() -> str:
    """Say why boards cannot be had on this machine; nothing if they can."""
    if os.geteuid() != 0:
        return "an SSH server for these boards needs root"
    if SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        return "needs OpenSSH: apt-get install openssh-server openssh-client"
    return ""


class Boards:
    """A researcher's machine, which is the sandbox itself, and boards around it."""

    def __init__(self, count: int) -> None:
        self.machine = Machine()
        Path("/run/sshd").mkdir()  # where sshd locks its unprivileged half up
        self.folder = self.machine.folder
        self.homes = self.folder
        self.names = [f"b{number}" for number in range(count)]
        self._key("user")
        self.sshds = [self._add(number) for number in range(count)]

    def inventory(self, **changes: Any) -> Path:
        """Write an inventory of all boards; ``changes`` are to the profile."""
        profile = {
            "link": {"kind": "emulated", "interface": "data0"},
            "python": sys.executable,
            **changes,
        }
        profiles = [
            {"name": name, "folder": str(self.homes / name / "fadelab"), **profile}
            for name in self.names
        ]
        path = self.folder / "lab.yaml"
        content = {
            "server": {"address": SERVER},
            "trust": "trust",
            "known_hosts": "known_hosts",
            "profiles": profiles,
            "boards": [
                {
                    "name": name,
                    "profile": name,
                    "host": f"10.8.0.{2 + number}",
                    "user": "root",
                    "identity": "user",
                }
                for number, name in enumerate(self.names)
            ],
        }
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def command(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `fadelab` on the researcher's machine."""
        return subprocess.Popen(
            fadelab(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )

    def ended(self, *arguments: str) -> tuple[int, str]:
        """Run `fadelab` to its end; return its exit code and what it said."""
        process = self.command(*arguments)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def close(self) -> None:
        for sshd in self.sshds:
            sshd.terminate()
            sshd.wait()

    def _add(self, number: int) -> "subprocess.Popen[bytes]":
        name = self.names[number]
        self.machine.add_namespace(name)
        self._join(number, "mgmt", _MANAGEMENT, f"10.8.0.{2 + number}")
        self._join(number, "data", SERVER, f"10.9.0.{2 + number}")
        key = self._key(f"host-{name}")
        with (self.folder / "known_hosts").open("a") as known:
            known.write(f"10.8.0.{2 + number} {key.with_suffix('.pub').read_text()}")
        config = self.folder / f"sshd-{name}"
        # Its packages are seen by every Python of the board, as if the system had them.
        packages = sysconfig.get_paths()["purelib"]
        config.write_text(
            f"ListenAddress 10.8.0.{2 + number}\n"
            f"HostKey {key}\n"
            f"AuthorizedKeysFile {self.folder}/user.pub\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"PermitRootLogin prohibit-password\nMaxStartups 50\n"
            f"SetEnv PYTHONPATH={packages}\n"
        )
        return self._sshd(name)

    def _sshd(self, name: str) -> "subprocess.Popen[bytes]":
        assert SSHD is not None
        start = partial(subprocess.Popen, [SSHD, "-D", "-e", "-f", f"{self.folder}/sshd-{name}"])
        log = (self.folder / f"sshd-{name}.log").open("ab")
        return self.machine.inside(name, lambda: start(stderr=log))

    def _join(self, number: int, what: str, here: str, there: str) -> None:
        """Lay a cable from the machine to a board: an address at each end, a route to the other."""
        index = (500 if what == "mgmt" else 600) + number
        tail = index.to_bytes(2)
        near = links.VethEnd(f"{what}-b{number}", index, bytes.fromhex("02000000") + tail)
        far = links.VethEnd(f"{what}0", index, bytes.fromhex("02000001") + tail)
        descriptor = os.open(self.machine.named / self.names[number], os.O_RDONLY)
        with NetlinkSocket() as netlink:
            netlink.change([links.create_veth(near, far, descriptor)])
        os.close(descriptor)

        def configure(own: str, its: str) -> None:
            with NetlinkSocket() as netlink:
                netlink.change(
                    [
                        links.set_up(index),
                        links.add_address(index, own),
                        links.add_route(index, its, own),
                    ]
                )

        configure(here, there)
        self.machine.inside(self.names[number], lambda: configure(there, here))

    def _key(self, name: str) -> Path:
        path = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        return path

    def run(self, out: Path, *settings: str) -> "subprocess.Popen[str]":
        """Start an experiment on all boards."""
        given = (*ON_A_BUSY_MACHINE, f"devices.count={len(self.names)}", *settings)
        options = [option for setting in given for option in ("--set", setting)]
        inventory = str(self.folder / "lab.yaml")
        return self.command(
            "boards", "run", inventory, str(QUICKSTART), "--out", str(out), *options
        )

    def cut_off(self, number: int) -> None:
        """Take a board's SSH server away, with everybody who is logged in."""
        sshd = self.sshds[number]
        logged_in = Path(f"/proc/{sshd.pid}/task/{sshd.pid}/children").read_text().split()
        for pid in (sshd.pid, *map(int, logged_in)):
            os.kill(pid, signal.SIGKILL)
        sshd.wait()

    def connect_again(self, number: int) -> None:
        """Start a board's SSH server anew."""
        self.sshds[number] = self._sshd(self.names[number])

    def shaped(self) -> list[Any]:
        """Return everything about the boards' data interfaces that a run might change."""
        return [self.machine.state_of(name, "data0") for name in self.names]

    def left_running(self) -> list[str]:
        """Return the command lines of processes of Fadelab other than the tests' own."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "fadelab emulate" in words or "fadelab agent" in words or "-m fadelab" in words:
                    found.append(words)
        return found
