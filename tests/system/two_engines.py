"""Two Docker engines on one machine, each in a network namespace of its own, joined by a bridge.

To each other they are two hosts: what reaches one from the other has to cross the network between.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NETWORK = "fadelab-sw"
"""What the names of the namespaces begin with."""
_START_S = 60.0
_STOP_S = 60.0


def said(*arguments: str | Path, timeout_s: float = 600.0, check: bool = True, **env: str) -> str:
    """Run a program and return what it says on standard output; fail with all it says."""
    command = [str(argument) for argument in arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False,
        env=os.environ | env,
    )  # fmt: skip
    if check and ended.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {ended.returncode}\n{ended.stderr}")
    return ended.stdout


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine."""

    name: str
    host: str
    """For DOCKER_HOST."""
    address: str
    """On the network between the two."""
    namespace: Path

    def docker(self, *arguments: str | Path, check: bool = True) -> str:
        """Run ``docker`` with this engine."""
        return said("docker", *arguments, check=check, DOCKER_HOST=self.host)


@contextlib.contextmanager
def two_engines(data: Path, run: Path) -> Iterator[tuple[Engine, Engine]]:
    """Start both; end them and remove their namespaces in any case.

    Args:
        data: folder for their images; may be used again.
        run: folder for sockets and logs; a short path, for sockets allow 107 bytes.

    """
    with contextlib.ExitStack() as undo:
        _bridge(undo)
        yield _engine(1, data, run, undo), _engine(2, data, run, undo)


def _bridge(undo: contextlib.ExitStack) -> None:
    _namespace(f"{_NETWORK}0", undo)
    said("ip", "-n", f"{_NETWORK}0", "link", "add", "br0", "up", "type", "bridge")


def _namespace(name: str, undo: contextlib.ExitStack) -> None:
    said("ip", "netns", "add", name)
    undo.callback(said, "ip", "netns", "delete", name)
    said("ip", "-n", name, "link", "set", "lo", "up")


def _engine(number: int, data: Path, run: Path, undo: contextlib.ExitStack) -> Engine:
    name, address = f"{_NETWORK}{number}", f"10.88.0.{number}"
    _namespace(name, undo)
    hub = f"{_NETWORK}0"
    said("ip", "-n", hub, "link", "add", f"p{number}", "master", "br0", "up",
         "type", "veth", "peer", "name", "eth0", "netns", name)  # fmt: skip
    said("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    said("ip", "-n", name, "link", "set", "eth0", "up")
    said("ip", "-n", name, "route", "add", "default", "via", "10.88.0.254")
    socket, log, root = run / f"s{number}", run / f"log{number}", data / f"engine{number}"
    for old in ("swarm", "network"):
        shutil.rmtree(root / old, ignore_errors=True)
    # A mount namespace of its own with another /run: engines must not see each other's networks there.
    # Shared within, so that mounts of networks show in containers, as on a machine with systemd.
    inside = (
        f"hostname h{number} && mount -t tmpfs none /run && mount --make-shared /run && exec dockerd "
        f"--data-root {root} --exec-root {run}/exec{number} --pidfile {run}/pid{number} "
        f"--host unix://{socket} --bip 172.2{number}.0.1/24"
    )
    program = ["nsenter", f"--net=/run/netns/{name}", "unshare", "--uts", "--mount",
               "--propagation", "private", "sh", "-c", inside]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(program, stdout=output, stderr=output, start_new_session=True)
    undo.callback(_end, process)
    engine = Engine(f"h{number}", f"unix://{socket}", address, Path("/run/netns") / name)
    _await_engine(engine, process, log)
    return engine


def _await_engine(engine: Engine, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until it says that its interface is there, or ends."""
    follow = subprocess.Popen(
        ["tail", "--pid", str(process.pid), "-n", "+1", "-f", str(log)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout is not None
    try:
        for line in follow.stdout:
            if "API listen on" in line:
                return
    finally:
        follow.kill()
        follow.wait()
    raise AssertionError(f"{engine.name} does not start: {log.read_text()[-2000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
