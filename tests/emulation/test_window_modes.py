"""What closed links do with packets in each mode, in both directions, and what is counted of it."""

import errno
import socket
import struct
import threading
import time
from typing import Any

import pytest
from sandboxed import in_sandbox, make_backend, make_tick, tcp_pair, udp_pair

from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.backends.topology import (
    DEVICE_INDEX,
    device_routes,
    gate_open,
    hub_index,
)
from fadelab_emulation.netlink import filters, links, nftables, traffic
from fadelab_emulation.netlink.classic_bpf import Operation, Step
from fadelab_emulation.netlink.message import NetlinkError, NetlinkSocket, Request
from fadelab_emulation.window import WindowMode

_RATE_BPS = 2e6
_GUARDED_S = 0.03


def open_window(backend: KernelBackend, mode: WindowMode) -> None:
    backend.apply(make_tick(1, _RATE_BPS))
    if mode is WindowMode.DOWN:
        # The kernel tells the other end of its carrier in its own time.
        time.sleep(0.1)


def close_window(backend: KernelBackend) -> None:
    backend.apply(make_tick(1, _RATE_BPS, is_open=False))
    time.sleep(_GUARDED_S)
    backend.check_guards()


def opened(mode: WindowMode) -> KernelBackend:
    backend = make_backend(1, _RATE_BPS, window=mode)
    open_window(backend, mode)
    return backend


def leaked(backend: KernelBackend) -> list[int]:
    counters = backend.counters()
    return [int(d.leaked_packets[0]) for d in (counters.up, counters.down)]


def received(receiver: socket.socket, count: int) -> list[bytes]:
    """Return so many datagrams, or those that come within two seconds, and any that follow."""
    found: list[bytes] = []
    receiver.settimeout(2)
    try:
        while len(found) < count:
            found.append(receiver.recv(2000))
        receiver.settimeout(0.03)
        while True:
            found.append(receiver.recv(2000))
    except TimeoutError:
        return found


def send(sender: socket.socket, text: bytes) -> str:
    try:
        sender.send(text)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def one_window(mode: WindowMode, uplink: bool, rounds: int) -> dict[str, Any]:
    """Send before, during and after closed windows; return what came when."""
    backend = opened(mode)
    sender, receiver = udp_pair(backend, uplink=uplink)
    seen: dict[str, Any] = {"closed": [], "open": [], "errors": set()}
    kept = 3 if mode is WindowMode.HOLD else 0
    for _ in range(rounds):
        send(sender, b"before")
        seen["open"] += received(receiver, 1)
        close_window(backend)
        seen["errors"] |= {send(sender, b"during") for _ in range(3)}
        seen["closed"] += received(receiver, 0)
        open_window(backend, mode)
        send(sender, b"after")
        seen["open"] += received(receiver, kept + 1)
    seen["leaked"] = leaked(backend)
    sample = backend.sample()
    through = sample.up if uplink else sample.down
    seen["through"] = int(through.through_packets[0])
    return seen


@pytest.mark.namespaces
@pytest.mark.parametrize("uplink", [True, False])
@pytest.mark.parametrize("mode", WindowMode)
def test_nothing_gets_through_while_closed_and_all_does_again_afterwards(
    mode: WindowMode, uplink: bool
) -> None:
    rounds = 2
    seen = in_sandbox(one_window, mode, uplink, rounds)
    kept = [b"during"] * 3 if mode is WindowMode.HOLD else []
    assert seen["closed"] == []
    assert seen["open"] == [b"before", *kept, b"after"] * rounds
    assert seen["leaked"] == [0, 0]
    assert seen["through"] == (2 + len(kept)) * rounds
    told = {"ENETUNREACH"} if mode is WindowMode.DOWN and uplink else {""}
    assert seen["errors"] == told


def refusals(uplink: bool, count: int) -> tuple[list[tuple[int, int]], float]:
    """Return type and code of the ICMP messages that a sender gets, and within which time."""
    backend = opened(WindowMode.REJECT)
    sender, _ = udp_pair(backend, uplink=uplink)

    def listen() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    news = backend.namespaces[0].run(listen) if uplink else listen()
    news.settimeout(2)
    close_window(backend)
    start_s = time.monotonic()
    for _ in range(count):
        send(sender, b"x")
    told = [news.recv(2000)[20:22] for _ in range(count)]
    return [(message[0], message[1]) for message in told], time.monotonic() - start_s


@pytest.mark.namespaces
@pytest.mark.parametrize("uplink", [True, False])
def test_every_rejected_packet_is_answered_at_once_without_a_limit(uplink: bool) -> None:
    told, elapsed_s = in_sandbox(refusals, uplink, 200)
    assert told == [(3, 1)] * 200
    # Their own way back takes 70 bytes each at 2 Mbit/s; by default one a second would come.
    assert elapsed_s < 1.0


def break_window(mode: WindowMode, backend: KernelBackend) -> None:
    """Open the uplink of a closed link behind the back-end's back."""
    if mode is WindowMode.HOLD:
        requests = [traffic.change_tbf(gate_open(DEVICE_INDEX))]
        backend.namespaces[0].netlink.change(requests)
    elif mode is WindowMode.DROP:
        pass_all = filters.set_ingress_filter(
            hub_index(0),
            1,
            [Step(Operation.RETURN, filters.GO_ON)],
            name="broken",
            protocol=filters.ETH_P_ALL,
        )
        with NetlinkSocket() as netlink:
            netlink.change([pass_all])
    elif mode is WindowMode.REJECT:
        backend._window._at_hub.open_interfaces([hub_index(0)])  # type: ignore[attr-defined]
    else:
        requests = [links.set_up(DEVICE_INDEX), *device_routes(0)]
        backend.namespaces[0].netlink.change(requests)


def leaks_through_a_broken_window(mode: WindowMode) -> tuple[list[int], int]:
    backend = opened(mode)
    sender, receiver = udp_pair(backend, uplink=True)
    close_window(backend)
    for _ in range(4):
        send(sender, b"held up")
    break_window(mode, backend)
    for _ in range(3):
        send(sender, b"leaked")
    came = len(received(receiver, 7 if mode is WindowMode.HOLD else 3))
    return leaked(backend), came


@pytest.mark.namespaces
@pytest.mark.parametrize("mode", WindowMode)
def test_what_gets_through_a_broken_window_is_counted(mode: WindowMode) -> None:
    passing = 7 if mode is WindowMode.HOLD else 3
    assert in_sandbox(leaks_through_a_broken_window, mode) == ([passing, 0], passing)


def connection_over_a_window(mode: WindowMode) -> tuple[int, int]:
    """Return bytes sent and received over a TCP connection that outlives a closed window."""
    backend = opened(mode)
    client, server = tcp_pair(backend, 0)
    sent = 150_000
    client.settimeout(20)
    sending = threading.Thread(target=lambda: client.sendall(bytes(sent)))
    sending.start()
    time.sleep(0.2)
    close_window(backend)
    time.sleep(0.3)
    backend.apply(make_tick(1, _RATE_BPS))
    server.settimeout(10)
    got = 0
    while got < sent:
        got += len(server.recv(65536))
    sending.join()
    return sent, got


@pytest.mark.namespaces
@pytest.mark.parametrize("mode", WindowMode)
def test_a_tcp_connection_outlives_a_closed_window_in_every_mode(mode: WindowMode) -> None:
    sent, got = in_sandbox(connection_over_a_window, mode)
    assert got == sent


def losses_beside_windows() -> tuple[int, int, list[int]]:
    """Return what the loss account saw of packets sent while open and while closed."""
    backend = make_backend(1, 1e8, window=WindowMode.DROP)
    backend.apply(make_tick(1, 1e8, loss_up=1.0))
    sender, _ = udp_pair(backend, uplink=True)
    backend.sample()
    for _ in range(2):
        for _ in range(10):
            sender.send(b"lost")
        time.sleep(0.05)
        backend.sample()
        backend.apply(make_tick(1, 1e8, is_open=False))
        time.sleep(_GUARDED_S)
        backend.check_guards()
        for _ in range(7):
            sender.send(b"dropped")
        time.sleep(0.05)
        backend.sample()
        backend.apply(make_tick(1, 1e8, loss_up=1.0))
        backend.sample()
    counters = backend.counters().up
    return int(counters.arrived_packets[0]), int(counters.lost_packets[0]), leaked(backend)


@pytest.mark.namespaces
def test_what_a_closed_window_drops_is_neither_loss_nor_leak() -> None:
    assert in_sandbox(losses_beside_windows) == (20, 20, [0, 0])


def test_a_kernel_without_nf_tables_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(protocol: int) -> NetlinkSocket:
        raise OSError(errno.EPROTONOSUPPORT, f"protocol {protocol}")

    monkeypatch.setattr(nftables, "NetlinkSocket", refuse)
    with pytest.raises(NetlinkError, match="the kernel needs nf_tables") as refused:
        nftables.Rejections([1])
    assert refused.value.errno == errno.EPROTONOSUPPORT


def refused_transaction() -> tuple[str, str]:
    """Return what a transaction reports that fails as a whole, and one in which one part fails."""
    rejections = nftables.Rejections([5])
    found = []
    try:
        rejections.open_interfaces([6])
    except NetlinkError as error:
        found.append(error.operation)
    rejections.open_interfaces([5])
    with NetlinkSocket(nftables.NETLINK_NETFILTER) as netlink:
        begin = Request("begin with an unknown subsystem", 0x10, 0, struct.pack(">BBH", 0, 0, 200))
        try:
            netlink.commit([begin], begin, begin)
        except NetlinkError as error:
            found.append(error.operation)
    return found[0], found[1]


@pytest.mark.namespaces
def test_a_refused_transaction_names_what_failed() -> None:
    assert in_sandbox(refused_transaction) == (
        "move interfaces in the set 'closed'",
        "begin with an unknown subsystem",
    )
