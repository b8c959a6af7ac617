"""One update of a device whose agent is killed again and again, and which gets another address.

Run by `fadelab link run`, at both ends of one link: as the server, which knows the way to the
device's second address too, and on the device, where it prints what was observed as one JSON object.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import grpc
from tests.processes import fork
from tests.system.forking import exit_code, kill

from fadelab.cli.processes import AgentFile
from fadelab_agent.agent import run_agent
from fadelab_agent.workbench import Workbench
from fadelab_emulation.namespaces import NetworkNamespace
from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.message import NetlinkSocket, Request
from fadelab_emulation.tcp_watch import TcpWatch
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.wire import channel_options

SERVER, FIRST, SECOND = "10.77.0.1", "10.77.1.1", "10.77.250.1"
HUB_INDEX, DEVICE_INDEX, DEVICE_MAC = 16, 2, bytes.fromhex("02fade010000")
"""As fadelab_emulation.backends.topology makes them."""
KILLED_AT = (1 / 8, 3 / 8, 5 / 8)
"""Shares of the update that the server has by then."""
_RTM_DELADDR = 21
_LEAD_S = 0.1


def serve(folder: Path) -> None:
    """Become the server."""
    with NetlinkSocket() as netlink:
        netlink.change(
            [
                links.add_neighbour(HUB_INDEX, SECOND, DEVICE_MAC),
                links.add_route(HUB_INDEX, SECOND, SERVER),
            ]
        )
    config = str(folder / "server.json")
    os.execv(sys.executable, [sys.executable, "-m", "fadelab", "server", config])


def change_address() -> None:
    """Give the device its second address in place of the first."""
    first = links.add_address(DEVICE_INDEX, FIRST)
    with NetlinkSocket() as netlink:
        netlink.change(
            [
                Request(f"remove address {FIRST}", _RTM_DELADDR, 0, first.body),
                links.add_address(DEVICE_INDEX, SECOND),
                links.add_route(DEVICE_INDEX, SERVER, SECOND),
            ]
        )


def watch(folder: Path) -> Iterator[dict[str, Any]]:
    """Begin the run once the device is there; yield how the update stands whenever that changes.

    From a process of its own: gRPC and forking do not go together.
    """
    reader, writer = os.pipe()

    def body() -> None:
        os.close(reader)
        with os.fdopen(writer, "w", buffering=1) as tell:
            asyncio.run(_watch(folder, tell))

    watcher = fork(body)
    os.close(writer)
    with os.fdopen(reader) as lines:
        yield from map(json.loads, lines)
    assert exit_code(watcher) == 0


async def _watch(folder: Path, tell: TextIO) -> None:
    options = channel_options()
    async with grpc.aio.insecure_channel(f"unix:{folder / 'operator'}", options=options) as channel:
        stub = pb_grpc.OperatorStub(channel)
        started = False
        async for status in stub.WatchStatus(pb.WatchStatusRequest()):
            if status.joined and not started:
                started = True
                start_mono_s = time.monotonic() + _LEAD_S
                await stub.Start(pb.StartRequest(start_mono_s=start_mono_s))
            device = status.devices[0] if status.devices else pb.DeviceStatus()
            whole = status.tasks[0].updates > 0
            share = 1.0 if whole else device.packets_received / max(1, device.packets)
            tell.write(json.dumps({"share": share, "whole": whole}) + "\n")
            if whole:
                return


def until_closed(since_s: float, open_s: float, closed_s: float) -> None:
    """Wait until the middle of the next pause between contact windows."""
    period_s = open_s + closed_s
    now_s = time.monotonic()
    whole_periods_s = (now_s - since_s) // period_s * period_s
    time.sleep(max(0.0, since_s + whole_periods_s + open_s + closed_s / 2 - now_s))


def live(folder: Path, open_s: float, closed_s: float) -> None:
    """Live as the device, from its first agent's beginning to its last one's end.

    The first agent is killed while it sends, the others out of contact; before the last one the
    device gets another address.
    """
    since_s = time.monotonic()
    file = AgentFile.model_validate_json((folder / "agent.json").read_bytes())
    bench = Workbench(file.work)
    bench.warm_up()
    here = NetworkNamespace(os.open("/proc/self/ns/net", os.O_RDONLY), NetlinkSocket(), ())
    tcp = TcpWatch([here], [FIRST])

    def agent() -> int:
        return fork(lambda: asyncio.run(run_agent(file.agent, [bench.device(0)])))

    pid, killed = agent(), 0
    for state in watch(folder):
        if state["whole"] or killed == len(KILLED_AT) or state["share"] < KILLED_AT[killed]:
            continue
        if killed > 0:
            until_closed(since_s, open_s, closed_s)
        kill(pid)
        killed += 1
        if killed == len(KILLED_AT):
            change_address()
        pid = agent()
    code = exit_code(pid)
    (sent,), _ = tcp.sent()
    seen = {
        "killed": killed,
        "exit_code": code,
        "connections": tcp.connections(0),
        "tcp_bytes_once": sent.bytes_sent - sent.bytes_retransmitted,
        "tcp_bytes_retransmitted": sent.bytes_retransmitted,
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    role, where, *windows = sys.argv[1:]
    if role == "server":
        serve(Path(where))
    else:
        live(Path(where), *map(float, windows))
