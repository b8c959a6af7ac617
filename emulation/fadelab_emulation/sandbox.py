"""A private place for a run: its own network, mount and process namespaces.

Everything the emulator makes (interfaces, queues, network namespaces, processes) lives inside and
dies with it, however the run ends; the machine's own network is never touched and no name is left
behind. Root enters directly; an ordinary user through a user namespace that maps them to root.

    launcher --fork--> guardian --fork--> init (process 1) --fork--> the caller of enter_sandbox
                       outside the new    reaps orphans
                       process namespace

Killing the launcher, the guardian or init, even with SIGKILL, ends every process inside.
"""

import contextlib
import errno
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from fadelab_emulation import linux
from fadelab_emulation.netlink.links import LOOPBACK_INDEX, set_up
from fadelab_emulation.netlink.message import NetlinkSocket

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SI_KERNEL = 0x80
_NAMESPACES = linux.CLONE_NEWNET | linux.CLONE_NEWNS | linux.CLONE_NEWPID

_own_network: tuple[int, int] | None = None
"""Device and inode number of the network namespace that enter_sandbox made for this process."""
_adopted: set[tuple[int, int]] = set()
"""Of others that the user has named for links to be made in."""


class Refusal(StrEnum):
    """Why a sandbox could not be had."""

    USER_NAMESPACES_OFF = "user namespaces are switched off (user.max_user_namespaces = 0)"
    UNPRIVILEGED_OFF = "ordinary users may not create user namespaces on this kernel"
    APPARMOR = "AppArmor takes the capabilities away from unprivileged user namespaces"
    CONTAINER = "the container's seccomp filter refuses new namespaces"
    NOT_BUILT_IN = "this kernel was built without user or network namespaces"
    THREADS = "the process already runs several threads"
    OTHER = "the kernel refused new namespaces"


_REMEDIES = {
    Refusal.USER_NAMESPACES_OFF: "Run as root, or `sudo sysctl user.max_user_namespaces=10000`.",
    Refusal.UNPRIVILEGED_OFF: "Run as root, or `sudo sysctl kernel.unprivileged_userns_clone=1`.",
    Refusal.APPARMOR: (
        "Run as root, or `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
    ),
    Refusal.CONTAINER: (
        "Start the container with `--cap-add SYS_ADMIN --cap-add NET_ADMIN "
        "--security-opt seccomp=unconfined`, or run outside it."
    ),
    Refusal.NOT_BUILT_IN: "Use a kernel with CONFIG_USER_NS, CONFIG_NET_NS and CONFIG_PID_NS.",
    Refusal.THREADS: "Enter the sandbox in a freshly forked process.",
    Refusal.OTHER: "Run as root, or in a place that allows `unshare -Urn`.",
}


class SandboxError(Exception):
    """No sandbox: ``refusal`` says why, ``remedy`` what to do about it."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        self.refusal = refusal
        self.remedy = _REMEDIES[refusal]
        self.detail = detail
        super().__init__(f"{refusal.value} ({detail}). {self.remedy}")


class ForeignNamespaceError(Exception):
    """The calling thread is in a network namespace that Fadelab did not make."""


@dataclass(frozen=True, slots=True)
class KernelPolicy:
    """What the machine says about unprivileged namespaces; None where it says nothing."""

    max_user_namespaces: int | None
    unprivileged_userns_clone: int | None
    apparmor_restricts: int | None
    seccomp_filtered: bool

    @classmethod
    def read(cls, proc: Path = Path("/proc")) -> "KernelPolicy":
        """Return the policy in force for this process."""
        return cls(
            _read_number(proc / "sys/user/max_user_namespaces"),
            _read_number(proc / "sys/kernel/unprivileged_userns_clone"),
            _read_number(proc / "sys/kernel/apparmor_restrict_unprivileged_userns"),
            "Seccomp:\t2" in (proc / "self/status").read_text(),
        )


@dataclass(frozen=True, slots=True)
class SandboxProbe:
    """Whether a sandbox can be had here."""

    available: bool
    user_namespace: bool
    """It needs, or would need, a user namespace."""
    problem: str
    """Empty, or one sentence with the cause and one with the remedy."""


def classify_refusal(number: int, policy: KernelPolicy) -> Refusal:
    """Return the most likely cause of error ``number`` from unshare(2) or the id maps."""
    if policy.max_user_namespaces == 0 or number in (errno.ENOSPC, errno.EUSERS):
        return Refusal.USER_NAMESPACES_OFF
    if number == errno.EINVAL:
        return Refusal.NOT_BUILT_IN
    if policy.unprivileged_userns_clone == 0:
        return Refusal.UNPRIVILEGED_OFF
    if policy.apparmor_restricts:
        return Refusal.APPARMOR
    return Refusal.CONTAINER if policy.seccomp_filtered else Refusal.OTHER


def enter_sandbox(launcher_pid: int | None = None) -> None:
    """Continue in a new sandbox, as root of it, with the loopback interface up.

    Call it in a freshly forked process with one thread and no event loop. Three processes come of
    it (see the module's text); only the innermost returns. The others pass on SIGTERM, SIGHUP and
    SIGINT (unless the terminal has sent it to all of them already) and the exit code.

    ``launcher_pid``: the process that forked this one; when it dies, the sandbox dies too. It
    must have forked from its main thread.

    Raises SandboxError, in which case nothing has changed but the user namespace.
    """
    global _own_network  # noqa: PLW0603 -- a process is in one sandbox or in none
    _make_namespaces()
    _die_with(launcher_pid)
    # Mounts made inside must not travel to the machine, nor the other way round.
    linux.mount("none", "/", "none", linux.MS_REC | linux.MS_PRIVATE)
    _fork_and_guard(_wait_for_child)
    # A /proc of the new process namespace, so that process ids mean the same everywhere inside.
    # Some containers forbid the mount; the old /proc then still serves this process's own entries.
    with contextlib.suppress(OSError):
        flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        linux.mount("proc", "/proc", "proc", flags)
    _fork_and_guard(_reap_until_child_ends)
    _raise_file_limit()
    _own_network = _current_network()
    with NetlinkSocket() as netlink:
        netlink.change([set_up(LOOPBACK_INDEX)])


def enter_network(descriptor: int) -> None:
    """Continue in another network namespace, which Fadelab made and somebody else keeps.

    To be called inside a sandbox, whose own network is given up for it; threads to come follow.
    Whether Fadelab made it is for the caller to know. Raises OSError where the kernel refuses.
    """
    global _own_network  # noqa: PLW0603 -- as in enter_sandbox
    assert_private_namespace()
    linux.setns(descriptor, linux.CLONE_NEWNET)
    _own_network = _current_network()


def adopt_network(descriptor: int) -> None:
    """Allow links in a network namespace that Fadelab did not make but the user has named."""
    status = os.fstat(descriptor)
    _adopted.add((status.st_dev, status.st_ino))


def assert_private_namespace() -> None:
    """Raise ForeignNamespaceError unless this thread is in the sandbox's own network.

    A network that was adopted is as good as that.
    """
    if _current_network() not in {_own_network, *_adopted}:
        raise ForeignNamespaceError(
            "refusing to touch a network that Fadelab did not make: enter a sandbox first"
        )


def probe_sandbox() -> SandboxProbe:
    """Try in a child process whether a sandbox can be had; changes nothing here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        problem = "the probe itself failed"
        try:
            _make_namespaces()
            problem = ""
        except SandboxError as error:
            problem = str(error)
        finally:
            os.write(writer, problem.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        problem = pipe.read()
    os.waitpid(child, 0)
    return SandboxProbe(not problem, not may_administer(), problem)


def _make_namespaces() -> None:
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise SandboxError(Refusal.THREADS, "unshare needs a process with one thread")
    try:
        if may_administer():
            linux.unshare(_NAMESPACES)
        else:
            _enter_user_namespace()
    except OSError as error:
        number = error.errno or 0
        raise SandboxError(classify_refusal(number, KernelPolicy.read()), str(error)) from error


def _enter_user_namespace() -> None:
    """Enter new namespaces as an ordinary user; their root is this user outside."""
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER)
    # The kernel accepts a one-user group map only after setgroups(2) is given up.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    linux.unshare(_NAMESPACES)


def may_administer() -> bool:
    """Say whether this process has CAP_SYS_ADMIN and CAP_NET_ADMIN where it stands."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            needed = 1 << 21 | 1 << 12
            return int(value, 16) & needed == needed
    return False


def _die_with(launcher_pid: int | None) -> None:
    if launcher_pid is None:
        return
    linux.signal_on_parent_death(signal.SIGKILL)
    if os.getppid() != launcher_pid:  # it died before the request was in force
        os._exit(1)


def _fork_and_guard(guard: Callable[[int], NoReturn]) -> None:
    """Fork; the parent becomes a guard over the child, the child returns.

    The child dies with the parent. A pipe tells it whether the parent was still there when that
    came into force; the parent's process id cannot, for it is 0 across process namespaces.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*_FORWARDED, signal.SIGCHLD))
    alive_reader, alive_writer = os.pipe()
    child = os.fork()
    if child != 0:
        os.close(alive_reader)
        guard(child)
    os.close(alive_writer)
    linux.signal_on_parent_death(signal.SIGKILL)
    poll = select.poll()
    poll.register(alive_reader, 0)
    parent_gone = bool(poll.poll(0))
    os.close(alive_reader)
    if parent_gone:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _wait_for_child(child: int) -> NoReturn:
    """Outside the process namespace: pass on signals until init ends, then end like it."""
    while True:
        _forward_next_signal(child)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended == child:
            os._exit(_exit_code(status))


def _reap_until_child_ends(child: int) -> NoReturn:
    """As process 1: reap whatever ends; end with the main process, which ends all others."""
    while True:
        _forward_next_signal(child)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if found[0] == child:
                    os._exit(_exit_code(found[1]))


def _forward_next_signal(child: int) -> None:
    """Wait for one signal and pass it to the child.

    Ctrl-C is sent by the kernel to the terminal's whole process group, the child included; passing
    it on would look like a second, impatient Ctrl-C.
    """
    received = signal.sigwaitinfo((*_FORWARDED, signal.SIGCHLD))
    if received.si_signo in _FORWARDED and received.si_code != _SI_KERNEL:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, received.si_signo)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _raise_file_limit() -> None:
    """Allow as many open files as the hard limit does: a thousand devices need several each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _current_network() -> tuple[int, int]:
    status = Path("/proc/thread-self/ns/net").stat()
    return status.st_dev, status.st_ino


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
