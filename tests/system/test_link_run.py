"""`fadelab link run`: foreign programs behind links, from the outside."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.commands import fadelab
from tests.system.machine_state import (
    descendants,
    host_network,
    namespaces,
    wait_for_end,
)

RATES = ("--rate-up", "5e6", "--rate-down", "20e6")
ORDINARY_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
ECHO_SERVER = """
import socket
listening = socket.create_server(("10.77.0.1", 7000))
while True:
    end, _ = listening.accept()
    while data := end.recv(100):
        end.send(data)
"""
ECHO_CLIENT = """
import json, os, socket, sys, time
end = socket.create_connection((os.environ["FADELAB_SERVER"], 7000))
end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
over, waits = time.monotonic() + float(sys.argv[1]), []
while time.monotonic() < over:
    sent = time.monotonic()
    end.send(b"x")
    end.recv(1)
    waits.append(time.monotonic() - sent)
    time.sleep(0.01)
print(json.dumps([min(waits), max(waits), os.getuid()]))
"""
WAITS_FOR_SIGNALS = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(9))
print("ready", flush=True)
signal.pause()
"""


def link_run(*arguments: str, before: tuple[str, ...] = (), text: str = "") -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    done = subprocess.run(
        [*before, *fadelab("link", "run", *arguments)],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def echo(tmp_path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Options for a server that echoes, and the command of a client that waits for echoes."""
    server, client = tmp_path / "server.py", tmp_path / "client.py"
    server.write_text(ECHO_SERVER)
    client.write_text(ECHO_CLIENT)
    options = ("--server", f"{sys.executable} {server}", "--server-port", "7000")
    return options, ("--", sys.executable, str(client))


def test_streams_environment_and_exit_code_are_the_programs_own() -> None:
    says = "cat; echo $FADELAB_SERVER $FADELAB_DEVICE $FADELAB_DEVICE_NUMBER; exit 7"
    code, out, errors = link_run(*RATES, "--", "sh", "-c", says, text="from outside\n")
    assert (code, out) == (7, "from outside\n10.77.0.1 10.77.1.1 0\n")
    assert "always open" in errors
    assert "back-end" in errors


def test_several_devices_run_the_same_program_each_behind_its_own_link() -> None:
    says = "echo $FADELAB_DEVICE; exit $FADELAB_DEVICE_NUMBER"
    code, out, errors = link_run(*RATES, "--devices", "3", "--", "sh", "-c", says)
    assert code == 1
    assert sorted(out.split()) == ["10.77.1.1", "10.77.1.2", "10.77.1.3"]
    assert len(re.findall(r"^[012] (?:up|down) ", errors, re.MULTILINE)) == 6


def test_an_outage_stops_traffic_and_is_recorded(
    echo: tuple[tuple[str, ...], tuple[str, ...]], tmp_path: Path
) -> None:
    server, client = echo
    record = tmp_path / "record"
    outage = ("--outage", "0.6:1.6", "--record", str(record))
    code, out, errors = link_run(*RATES, *outage, *server, *client, "2.5")
    assert code == 0, errors
    quickest_s, slowest_s, _ = json.loads(out)
    assert quickest_s < 0.1
    assert 0.9 < slowest_s < 2.5
    assert "closed for 1 s altogether" in errors
    assert not re.search(r"[1-9]\d*\s*$", errors.splitlines()[1]), errors  # nothing leaked
    events = [json.loads(x) for x in (record / "events" / "emulator-0.jsonl").open()]
    windows = [e["event"] for e in events if e["event"].startswith("contact_")]
    assert windows == ["contact_opened", "contact_closed", "contact_opened"]
    assert {path.name for path in record.iterdir()} == {
        "events",
        "links.schedule",
        "links.achieved",
    }


def test_an_ordinary_user_gets_links_with_delay(
    echo: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    if subprocess.run([*ORDINARY_USER, "true"], check=False, timeout=120).returncode:
        pytest.skip("needs user namespaces")
    server, client = echo
    delay = ("--delay-up", "0.02", "--delay-down", "0.03")
    code, out, errors = link_run(*RATES, *delay, *server, *client, "0.6", before=ORDINARY_USER)
    if code == 4:
        pytest.skip(f"needs netem or TUN: {errors}")
    assert code == 0, errors
    quickest_s, _, uid = json.loads(out)
    assert uid == 0  # of the sandbox
    assert 0.049 < quickest_s < 0.2


def test_a_signal_reaches_the_program() -> None:
    process = subprocess.Popen(
        fadelab("link", "run", *RATES, "--", sys.executable, "-c", WAITS_FOR_SIGNALS),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 9, errors


def test_a_server_that_ends_too_early_is_named() -> None:
    server = ("--server", "sh -c 'exit 3'", "--server-port", "7000")
    code, out, errors = link_run(*RATES, *server, "--", "echo", "never")
    assert (code, out) == (6, "")
    assert errors == (
        "fadelab: the server ended with exit code 3 before it listened on port 7000\n"
    )


def test_nothing_stays_when_the_command_is_killed() -> None:
    before = host_network()
    program = ("sh", "-c", "sleep 1000 & echo begun; sleep 1000")
    process = subprocess.Popen(
        fadelab("link", "run", *RATES, "--server", "sleep 1000", "--", *program),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    children = descendants(process.pid)
    assert len(children) >= 6
    watched = [os.pidfd_open(pid) for pid in children]
    made = {network_of(pid) for pid in children} - {network_of(os.getpid())}
    assert len(made) == 2
    process.kill()
    process.wait(timeout=30)
    process.stdout.close()
    for descriptor in watched:
        wait_for_end(descriptor)
    assert host_network() == before
    assert not made & namespaces()


def network_of(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())
