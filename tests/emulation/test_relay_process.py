"""The relay process lives with its parent, holds nothing of it, and says what it lacks."""

import os
import select
import signal
import socket
import struct
from pathlib import Path

import pytest
from sandboxed import in_sandbox, make_backend

from fadelab_emulation.backends.relay import RelayBackend
from fadelab_emulation.backends.relay.process import RelayError
from fadelab_emulation.backends.relay.tun import open_tun

pytestmark = pytest.mark.namespaces


@pytest.fixture(autouse=True)
def _needs_tun() -> None:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("needs access to /dev/net/tun")


def outlive_the_relay() -> str:
    backend = make_backend(1, 1e6, RelayBackend)
    backend.sample()
    os.kill(backend._process._process.pid, signal.SIGKILL)
    backend._process._process.wait()
    try:
        backend.sample()
    except RelayError as error:
        return str(error)
    finally:
        backend.close()
    return ""


def test_the_death_of_the_relay_is_told() -> None:
    assert "ended with code -9" in in_sandbox(outlive_the_relay)


def orphan_the_relay() -> tuple[bool, bool]:
    """Return whether the relay was there, and whether it ended after its parent was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        backend = make_backend(2, 1e6, RelayBackend)
        os.write(writer, struct.pack("i", backend._process._process.pid))
        signal.pause()
    (relay,) = struct.unpack("i", os.read(reader, 4))
    watch = os.pidfd_open(relay)
    was_there = not select.select([watch], [], [], 0)[0]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return was_there, bool(select.select([watch], [], [], 10)[0])


def test_the_relay_ends_with_its_parent() -> None:
    assert in_sandbox(orphan_the_relay) == (True, True)


def relay_descriptors() -> list[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    backend = make_backend(1, 1e6, RelayBackend)
    folder = Path(f"/proc/{backend._process._process.pid}/fd")
    found = [str(entry.readlink()) for entry in folder.iterdir()]
    backend.close()
    listener.close()
    return found


def test_the_relay_holds_no_socket_of_its_parent() -> None:
    found = in_sandbox(relay_descriptors)
    assert found.count("/dev/net/tun") == 2
    assert not [name for name in found if name.startswith("socket:")]


def test_a_missing_tun_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the TUN device .*none cannot be opened"):
        open_tun("eth0", 2, tmp_path / "none")


def test_what_is_no_tun_device_makes_no_interface(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file makes no interface eth0"):
        open_tun("eth0", 2, tmp_path / "file")


def end_a_relay_that_heeds_no_signal() -> int | None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    backend = make_backend(1, 1e6, RelayBackend)
    signal.pthread_sigmask(signal.SIG_SETMASK, old)
    watch = os.pidfd_open(backend._process._process.pid)
    backend.close()
    assert select.select([watch], [], [], 10)[0]
    return backend._process._process.returncode


def test_the_relay_ends_in_order_without_a_signal() -> None:
    assert in_sandbox(end_a_relay_that_heeds_no_signal) == 0
