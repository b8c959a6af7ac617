"""A sandbox is private, says why it cannot be had, and dies as a whole."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sandboxed import in_sandbox, make_backend

from fadelab_emulation.backends.lite import lite_backend
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.namespaces import apply_settings, create_namespaces
from fadelab_emulation.sandbox import (
    ForeignNamespaceError,
    KernelPolicy,
    Refusal,
    SandboxError,
    assert_private_namespace,
    classify_refusal,
    probe_sandbox,
)
from fadelab_proto.clock import SystemClock


@pytest.mark.parametrize(
    ("number", "policy", "refusal"),
    [
        (errno.ENOSPC, KernelPolicy(0, None, None, False), Refusal.USER_NAMESPACES_OFF),
        (errno.EPERM, KernelPolicy(9, 0, None, False), Refusal.UNPRIVILEGED_OFF),
        (errno.EPERM, KernelPolicy(9, 1, 1, False), Refusal.APPARMOR),
        (errno.EACCES, KernelPolicy(9, None, 1, False), Refusal.APPARMOR),
        (errno.EPERM, KernelPolicy(9, None, 0, True), Refusal.CONTAINER),
        (errno.EPERM, KernelPolicy(9, None, None, False), Refusal.OTHER),
        (errno.EINVAL, KernelPolicy(9, None, None, False), Refusal.NOT_BUILT_IN),
    ],
)
def test_a_refusal_is_traced_to_its_cause(
    number: int, policy: KernelPolicy, refusal: Refusal
) -> None:
    assert classify_refusal(number, policy) is refusal
    assert SandboxError(refusal, "unshare").remedy


def test_the_machines_own_network_is_refused() -> None:
    with pytest.raises(ForeignNamespaceError):
        assert_private_namespace()
    with pytest.raises(ForeignNamespaceError):
        create_namespaces(1, lambda: None)
    with pytest.raises(ForeignNamespaceError):
        lite_backend(LinkPlan([]), SystemClock())


@pytest.mark.namespaces
def test_settings_are_reported_as_obtained() -> None:
    settings = {setting.name: setting for setting in in_sandbox(apply_settings)}
    assert settings["net/ipv4/tcp_slow_start_after_idle"].value == "0"
    assert settings["net/ipv4/tcp_congestion_control"].value in {"cubic", "reno"}


def names_seen() -> tuple[list[str], list[str]]:
    backend = make_backend(2, 1e6)
    inside = backend.namespaces[0].run(interfaces)
    return interfaces(), inside


def interfaces() -> list[str]:
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return sorted(line.split(":")[0].strip() for line in lines)


@pytest.mark.namespaces
def test_links_exist_inside_only_and_leave_nothing_behind() -> None:
    before = interfaces(), Path("/proc/self/mountinfo").read_text()
    hub, device = in_sandbox(names_seen)
    assert {"fl0", "fl1", "lo"} <= set(hub)
    assert "eth0" in device
    assert "fl0" not in device
    assert (interfaces(), Path("/proc/self/mountinfo").read_text()) == before


SLEEPERS = textwrap.dedent("""
    import os, time
    from fadelab_emulation.sandbox import enter_sandbox
    launcher = os.getpid()
    if os.fork() == 0:
        enter_sandbox(launcher)
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(600)
        os.write(1, b"ready\\n")
        time.sleep(600)
    os.wait()
""")


@pytest.mark.namespaces
@pytest.mark.timeout(30)
def test_killing_the_launcher_ends_every_process_inside() -> None:
    if not (probe := probe_sandbox()).available:
        pytest.skip(f"needs namespaces: {probe.problem}")
    with subprocess.Popen([sys.executable, "-c", SLEEPERS], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"ready\n"
        launcher.send_signal(signal.SIGKILL)
        # Every process holds the pipe's other end: it closes when the last of them is gone.
        assert launcher.stdout.read() == b""


FORWARD = textwrap.dedent("""
    import os, signal, sys
    from fadelab_emulation.sandbox import enter_sandbox
    if (child := os.fork()) == 0:
        enter_sandbox()
        signal.signal(signal.SIGTERM, lambda *_: os._exit(42))
        if os.fork() == 0 and os.fork() == 0:
            os._exit(0)
        os.write(1, b"%d\\n" % os.getppid())
        signal.pause()
    os.write(1, b"%d\\n" % child)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")


@pytest.mark.namespaces
@pytest.mark.timeout(30)
def test_termination_is_passed_on_and_the_exit_code_comes_back() -> None:
    if not (probe := probe_sandbox()).available:
        pytest.skip(f"needs namespaces: {probe.problem}")
    with subprocess.Popen([sys.executable, "-c", FORWARD], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        numbers = {int(launcher.stdout.readline()), int(launcher.stdout.readline())}
        numbers.discard(1)
        os.kill(numbers.pop(), signal.SIGTERM)
        assert launcher.wait() == 42
