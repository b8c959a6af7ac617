"""The emulator is steered over a unix socket alone: nobody on any network can reach it."""

import asyncio
from pathlib import Path

import grpc
from sandboxed import make_backend

from fadelab_emulation.backends.dry import DryBackend
from fadelab_emulation.emulator import Emulator, EmulatorConfig
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog
from fadelab_proto.wire import channel_options


def internet_sockets() -> set[str]:
    """Return this process's TCP and UDP sockets over IPv4 and IPv6, by inode."""
    known = {
        line.split()[9]
        for kind in ("tcp", "tcp6", "udp", "udp6")
        for line in Path(f"/proc/self/net/{kind}").read_text().splitlines()[1:]
    }
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue  # the listing's own
        own.add(target.removeprefix("socket:[").rstrip("]"))
    return known & own


def test_the_radio_plane_is_served_on_a_unix_socket_alone(tmp_path: Path) -> None:
    socket = tmp_path / "radio"
    config = EmulatorConfig.model_validate(
        {
            "devices": 1,
            "seed": 1,
            "radio": {
                "mobility": {"kind": "static"},
                "rate": {"kind": "fixed", "rate_up_bps": 1e6, "rate_down_bps": 1e6},
            },
            "backend": {"variant": "dry", "why": "nothing is shaped here"},
            "radio_socket": socket,
            "events_dir": tmp_path,
            "schedule_path": tmp_path / "schedule",
            "achieved_path": tmp_path / "achieved",
        }
    )

    async def scenario() -> None:
        before = internet_sockets()
        clock = SystemClock()
        with EventLog(tmp_path, "emulator", "0", clock) as log:
            emulator = Emulator(config, make_backend(1, 1e6, DryBackend), clock, log)
            stop = asyncio.Event()
            serving = asyncio.create_task(emulator.serve(stop))
            address = f"unix:{socket}"
            try:
                async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
                    await channel.channel_ready()
                    assert socket.is_socket()
                    assert internet_sockets() == before
            finally:
                stop.set()
                await serving

    asyncio.run(asyncio.wait_for(scenario(), 30))
