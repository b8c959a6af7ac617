"""What `fadelab boards` asks of a board's own Python: a script that travels over SSH.

It needs nothing but the standard library, of any Python since 3.9, and says one JSON object. Usage:
``python3 -c SCRIPT facts FOLDER [INTERFACE]``, ``python3 -c SCRIPT clock`` or
``python3 -c SCRIPT keep COMMAND [END]``.
"""

import fcntl
import importlib.util
import json
import os
import platform
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

# netdevice(7); the numbers are those of linux/sockios.h.
_SIOCGIFADDR = 0x8915
_SIOCGIFMTU = 0x8921
_MODULES = ("sch_tbf", "sch_htb", "sch_ingress", "act_mirred", "ifb")
_SECONDS = 5
_SILENCE_S = 30
"""How long a connection may be silent before it counts as broken."""
_GRACE_S = 25
_HWMON = Path("/sys/class/hwmon")


def main() -> None:
    """Do what the first argument says."""
    _, verb, *rest = sys.argv
    if verb == "clock":
        answer_with_the_time()
    elif verb == "keep":
        print("ended", keep(rest[0], "".join(rest[1:])), flush=True)  # noqa: T201 -- its output
    else:
        print(json.dumps(facts(rest[0], "".join(rest[1:]))))  # noqa: T201 -- its output


def answer_with_the_time() -> None:
    """Answer every line with this machine's monotonic and Unix time, in nanoseconds."""
    for _ in sys.stdin:
        print(time.monotonic_ns(), time.time_ns(), flush=True)  # noqa: T201 -- its output


def keep(command: str, end: str) -> int:
    """Run a shell command while somebody writes to this script's input; return its exit code.

    When the input is closed, or nothing came for a while, the other machine or the way to it is
    gone: the command is ended, by SIGTERM or by the shell command ``end``.
    """
    child = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL)  # noqa: S603
    waiting = select.poll()
    for descriptor in (sys.stdin.fileno(), os.pidfd_open(child.pid)):
        waiting.register(descriptor, select.POLLIN)
    while child.poll() is None:
        ready = [descriptor for descriptor, _ in waiting.poll(1000 * _SILENCE_S)]
        heard = sys.stdin.fileno() in ready
        if not ready or (heard and not os.read(sys.stdin.fileno(), 4096)):
            _end(child, end)
    return child.returncode


def _end(child: "subprocess.Popen[bytes]", end: str) -> None:
    if end:
        subprocess.run(["/bin/sh", "-c", end], stdin=subprocess.DEVNULL, check=False)  # noqa: S603
    else:
        child.terminate()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def facts(under_home: str, interface: str) -> "dict[str, object]":
    """Return what is to be known of this board; null for what it does not tell."""
    folder = Path.home() / under_home
    return {
        "python": list(sys.version_info[:3]),
        "has_venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        # Devicetree Specification 0.4, section 2.3.2.
        "model": _read(Path("/proc/device-tree/model")).strip("\x00\n ") or None,
        "folder": str(folder),
        "free_bytes": _free_bytes(folder),
        "modules": {name: _has_module(name) for name in _MODULES},
        "interface": _interface(interface) if interface else None,
        "ssh_address": [*os.environ.get("SSH_CONNECTION", "").split(), "", "", ""][2],
        "is_root": os.geteuid() == 0,
        "may_be_root": os.geteuid() == 0 or _succeeds(["sudo", "-n", "true"]),
        "systemd": Path("/run/systemd/system").is_dir(),
        "sensors": _sensors(),
        "installed": (folder / "venv/bin/fadelab").exists(),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _free_bytes(folder: Path) -> int:
    while not folder.is_dir():
        folder = folder.parent
    there = os.statvfs(folder)
    return there.f_bavail * there.f_frsize


def _has_module(name: str) -> "bool | None":
    """Say whether the kernel has it loaded, built in or on disk; None if that cannot be told."""
    if Path("/sys/module", name).is_dir():
        return True
    folder = Path("/lib/modules", platform.release())
    lists = [_read(folder / file) for file in ("modules.builtin", "modules.dep")]
    if not any(lists):
        return None
    return any(f"/{name}.ko" in text for text in lists)


def _interface(name: str) -> "dict[str, object] | None":
    # Not from sysfs, which shows the interfaces of whoever mounted it.
    if name not in [there for _, there in socket.if_nameindex()]:
        return None
    request = struct.pack("256s", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        mtu = fcntl.ioctl(asking.fileno(), _SIOCGIFMTU, request)
        try:
            answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)
            address = socket.inet_ntoa(answer[20:24])
        except OSError:
            address = None
    return {"address": address, "mtu_bytes": struct.unpack_from("=i", mtu, 16)[0]}


def _succeeds(command: "list[str]") -> bool:
    quiet = subprocess.DEVNULL
    try:
        done = subprocess.run(  # noqa: S603 -- the arguments are ours
            command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _sensors() -> "list[str]":
    chips = sorted(_HWMON.iterdir()) if _HWMON.is_dir() else []
    found = ["ina3221" for chip in chips if _read(chip / "name").strip() == "ina3221"]
    if shutil.which("vcgencmd") and _succeeds(["vcgencmd", "pmic_read_adc"]):
        found.append("pmic")
    return found


if __name__ == "__main__":
    main()
