"""A Docker engine for tests: the one that is there, else one of the tests' own.

What takes long to make (the base image, packages, the images' layers) is kept in a cache folder of
the user, outside the repository: a second session takes seconds.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fadelab.images.build import SOURCE

BASE = "python:3.11-slim-bookworm"
TAG = "test"
_EXTRAS = ".[agent,command,containers,emulation,server]"
_READY_S, _END_S = 60, 60


def cache_folder() -> Path:
    """Return where things are kept from one session to the next."""
    top = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(top) / "fadelab" / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Engine:
    """An engine that answers."""

    host: str

    def docker(self, *arguments: str, timeout_s: float = 120) -> str:
        """Return what a docker command says, on either stream."""
        ended = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=self.environment,
        )
        return ended.stdout + ended.stderr

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_HOST": self.host, "COLUMNS": "200"}

    def fadelab(
        self, *arguments: str, timeout_s: float = 600
    ) -> "subprocess.CompletedProcess[str]":
        """Run a fadelab command that uses this engine."""
        return subprocess.run(
            [sys.executable, "-m", "fadelab", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=self.environment,
            cwd=SOURCE,
        )


def _answers(host: str) -> bool:
    asked = subprocess.run(
        ["docker", "version"],
        capture_output=True,
        check=False,
        timeout=60,
        env=os.environ | {"DOCKER_HOST": host},
    )
    return asked.returncode == 0


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Find an engine or start one, which ends with the context; skip where neither can be."""
    if shutil.which("docker") is None:
        pytest.skip("needs a Docker engine: there is no docker command")
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if _answers(host):
        yield Engine(host)
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        pytest.skip("needs a Docker engine: none answers, and only root can start dockerd")
    with (cache_folder() / "lock").open("w") as lock, _folder() as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = _start(folder)
        try:
            yield Engine(f"unix://{folder}/socket")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # Short: containerd's sockets lie deep below it.
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path) -> "subprocess.Popen[bytes]":
    """Start an engine without networks of its own; return when it answers."""
    with (
        (folder / "log").open("wb") as log,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
    ):
        # It tells service managers when it is ready: sd_notify(3).
        ready.bind(str(folder / "ready"))
        ready.settimeout(_READY_S)
        process = subprocess.Popen(
            [
                # It must not outlive tests that are killed: the next ones need its folder.
                *("setpriv", "--pdeathsig", "TERM", "dockerd"),
                *("--data-root", str(cache_folder() / "engine")),
                *("--exec-root", str(folder / "exec")),
                *("--pidfile", str(folder / "pid")),
                *("--host", f"unix://{folder}/socket"),
                *("--bridge=none", "--iptables=false"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "ready")},
            start_new_session=True,
        )
        try:
            assert b"READY=1" in ready.recv(4096)
        except TimeoutError:
            process.kill()
            process.wait()
            last = (folder / "log").read_text().splitlines()[-10:]
            pytest.fail("dockerd does not get ready:\n" + "\n".join(last))
    return process


def provide_base(found: Engine) -> None:
    """See to it that the engine has the base image; skip where it cannot be had."""
    if "No such image" not in found.docker("image", "inspect", BASE):
        return
    found.docker("pull", BASE, timeout_s=240)
    if "No such image" not in found.docker("image", "inspect", BASE):
        return
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.skip(f"needs the image {BASE}: it cannot be pulled, and nothing can make it here")
    made = subprocess.run(
        [SOURCE / "deploy/docker/base.sh", BASE],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env=found.environment,
    )
    assert made.returncode == 0, made.stderr


def wheels() -> Path:
    """Return a folder with everything that the images install, fetched by the machine's own pip."""
    folder = cache_folder() / "wheels"
    wanted = hashlib.sha256(
        b"".join((SOURCE / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    ).hexdigest()
    stamp = folder / "complete"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--dest", str(folder)]
        fetch += ["--constraint", "constraints.txt", _EXTRAS, "hatchling"]
        subprocess.run(fetch, check=True, timeout=280, cwd=SOURCE)
        stamp.write_text(wanted)
    return folder
