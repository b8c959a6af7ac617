import json
import os
import select
import signal
import subprocess
from pathlib import Path

from tests.system.conftest import fadelab, start, wait_for_line


def host_network() -> bytes:
    """The machine's interfaces, addresses, routes and qdiscs, without counters and lifetimes."""
    parts = [Path("/proc/net/route").read_bytes(), Path("/proc/net/if_inet6").read_bytes()]
    for interface in sorted(Path("/sys/class/net").iterdir()):
        for name in ("address", "mtu", "flags", "ifindex", "gso_max_segs", "tx_queue_len"):
            file = interface / name
            if file.exists():
                parts.append(f"{interface.name}/{name}={file.read_text()}".encode())
    return b"\n".join(parts)


def doctor() -> dict[str, object]:
    done = subprocess.run(fadelab("doctor", "--json"), capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def namespaces() -> set[str]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found.add(str((process / "ns" / "net").readlink()))
            except OSError:
                continue
    return found


def check_clean(before: bytes, spaces: set[str]) -> None:
    assert host_network() == before
    assert doctor()["leftovers"] == []
    assert namespaces() <= spaces


def test_after_a_normal_run(tmp_path: Path) -> None:
    before, spaces = host_network(), namespaces()
    process = start(tmp_path / "run", "duration_s=3")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    check_clean(before, spaces)


def test_after_an_interrupt(tmp_path: Path) -> None:
    before, spaces = host_network(), namespaces()
    process = start(tmp_path / "run", "duration_s=60")
    wait_for_line(process, "the run has begun")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["valid"] is False
    assert any("interrupted" in reason for reason in summary["invalid_reasons"])
    assert (tmp_path / "run" / "report.html").exists()
    check_clean(before, spaces)


def test_after_the_launcher_was_killed(tmp_path: Path) -> None:
    before, spaces = host_network(), namespaces()
    process = start(tmp_path / "run", "duration_s=60")
    wait_for_line(process, "the run has begun")
    children = descendants(process.pid)
    assert len(children) > 10
    watched = [os.pidfd_open(pid) for pid in children]
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    for descriptor in watched:
        wait_for_end(descriptor)
    check_clean(before, spaces)


def test_after_a_component_was_killed(tmp_path: Path) -> None:
    before, spaces = host_network(), namespaces()
    process = start(tmp_path / "run", "duration_s=60")
    wait_for_line(process, "the run has begun")
    (server,) = [pid for pid in descendants(process.pid) if name_of(pid) == "fadelab:server"]
    os.kill(server, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 6, output
    assert "server ended unexpectedly with SIGKILL" in output
    check_clean(before, spaces)


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def wait_for_end(descriptor: int) -> None:

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(30_000), "a process of the run outlived its launcher"
    os.close(descriptor)
