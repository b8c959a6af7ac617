"""Boots User-Mode Linux, a kernel that has sch_netem and runs as a process, to run a command in it.

Its root is the host's file system (hostfs), so the same interpreter and the same files are there.
It has one processor and is slow: light imports, no torch.
"""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MODULES = (
    "veth",
    "ifb",
    "tun",
    "sch_netem",
    "sch_tbf",
    "sch_htb",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "act_mirred",
    "nf_tables",
    "nft_reject",
    "iptable_filter",
    "ipt_REJECT",
)
_KERNEL = "linux.uml"
_MEMORY = "1G"
_INIT = Path(__file__).parent / "init.sh"


@dataclass(frozen=True, slots=True)
class UmlResult:
    """What a command did inside User-Mode Linux."""

    exit_code: int | None
    """None if the machine stopped, or was stopped, before the command had ended."""
    output: str
    console: str


def uml_problem() -> str:
    """Return why there is no User-Mode Linux here; empty if there is."""
    missing = [tool for tool in (_KERNEL, "modprobe") if shutil.which(tool) is None]
    if missing:
        return f"no {' and no '.join(missing)} (apt-get install user-mode-linux kmod)"
    return ""


def run_in_uml(argv: Sequence[str], timeout_s: float) -> UmlResult:
    """Boot, run ``argv`` as root in the current folder, and shut down."""
    with tempfile.TemporaryDirectory(prefix="fadelab-uml-") as folder:
        job = Path(folder)
        (job / "modules").write_text("\n".join(MODULES))
        here = shlex.quote(str(Path.cwd()))
        (job / "command").write_text(f"cd {here} && exec {shlex.join(argv)}\n")
        console = _boot(job, timeout_s)
        exit_code, output = (_read(job / name) for name in ("exit_code", "output"))
        return UmlResult(int(exit_code) if exit_code else None, output, console)


def _boot(job: Path, timeout_s: float) -> str:
    """Run the machine until it halts or time is up; return what its console said."""
    command = [
        *(_KERNEL, f"mem={_MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"),
        *(f"init={_INIT}", "con=null", "con0=null,fd:1", "quiet"),
        *(f"uml_dir={job}", f"FADELAB_JOB={job}"),
    ]
    machine = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        console, _ = machine.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(machine.pid, signal.SIGKILL)
        console, _ = machine.communicate()
        console += f"\nstopped after {timeout_s:g} s"
    return console


def _read(path: Path) -> str:
    return path.read_text(errors="replace").strip() if path.exists() else ""
