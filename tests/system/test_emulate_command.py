"""`fadelab emulate` as its users start and end it."""

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.system.commands import ROOT, fadelab, wait_for_line

sys.path.insert(0, str(ROOT / "tests" / "deploy"))

from emulate_bench import Machine, in_sandbox, steady

_BEGIN = """
import sys, time, grpc
from fadelab_proto import radio_pb2, radio_pb2_grpc
with grpc.insecure_channel(f"unix:{sys.argv[1]}") as channel:
    request = radio_pb2.BeginRequest(start_mono_s=time.monotonic() + 0.1)
    radio_pb2_grpc.EmulatorStub(channel).Begin(request, wait_for_ready=True, timeout=20)
    report = next(radio_pb2_grpc.RadioStub(channel).WatchLink(radio_pb2.WatchLinkRequest(device=0)))
    print(report.open)
"""
_ONE = {"server": {"netns": "server"}, "devices": [{"netns": "d0"}]}


def machine() -> Machine:
    made = Machine()
    for name in ("server", "d0"):
        made.add_namespace(name)
    return made


def command(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        fadelab("emulate", str(path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def begun_from_outside() -> tuple[str, int, str, list[str]]:
    there = machine()
    path = there.file(
        radio=steady(1e6),
        radio_socket="/run/test/radio",
        start="on_begin",
        duration_s=0.5,
        **_ONE,
    )
    process = command(path)
    wait_for_line(process, "driving 1 link by")
    begun = subprocess.run(
        [sys.executable, "-c", _BEGIN, "/run/test/radio"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    output, _ = process.communicate(timeout=30)
    return begun.stdout + begun.stderr, process.returncode, output, there.interfaces("server")


def test_a_timeline_begins_when_the_radio_plane_is_told_and_ends_by_itself() -> None:
    said, code, output, left = in_sandbox(begun_from_outside)
    assert said == "True\n"
    assert (code, output) == (0, "")
    assert left == ["lo"]


def ended_by(number: signal.Signals, **more: Any) -> tuple[int, str, list[str]]:
    there = machine()
    process = command(there.file(radio=steady(1e6), **_ONE, **more))
    wait_for_line(process, "driving 1 link by")
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output, there.interfaces("server")


def test_a_signal_is_the_end_of_a_timeline_without_one_and_an_interrupt_of_others() -> None:
    assert in_sandbox(ended_by, signal.SIGTERM) == (0, "", ["lo"])
    assert in_sandbox(partial(ended_by, signal.SIGINT, duration_s=60)) == (130, "", ["lo"])


def test_without_capabilities_the_remedy_is_told(tmp_path: Path) -> None:
    path = tmp_path / "emulation.yaml"
    path.write_text(
        "{record: out, radio: {mobility: {kind: static, placement: {kind: uniform}}, "
        "rate: {kind: fixed, rate_up_bps: 1e+6, rate_down_bps: 1e+6}}, "
        "devices: [{attach: eth0}], allow_host: true}"
    )
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "setpriv"),
            *("--bounding-set=-sys_admin,-net_admin", "--inh-caps=-all"),
            *fadelab("emulate", str(path)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert re.fullmatch(r"fadelab: .*CAP_NET_ADMIN and CAP_SYS_ADMIN.*\n", done.stderr)
