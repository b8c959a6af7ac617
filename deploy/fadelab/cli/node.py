"""``fadelab node``: the processes of a testbed that spans machines, as ``fadelab stack`` starts them."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import grpc
import typer

from fadelab.cli.processes import read_file, sentences
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_proto import collector
from fadelab_proto.wire import channel_options

node = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_File = Annotated[Path, typer.Argument(help="JSON file; `fadelab stack` writes it.")]


@node.callback()
def _node() -> None:
    """Run one process of a testbed that spans machines, as `fadelab stack` starts them."""


@node.command()
def emulate(config: _File) -> None:
    """Make and shape the links of this node's agents until the run is over.

    Example: fadelab node emulate node.json
    """
    # Each of these runs in an image that lacks the packages of the others.
    from fadelab.stack.node import run_node  # noqa: PLC0415
    from fadelab.stack.node_file import NodeFile  # noqa: PLC0415

    run_node(read_file(config, NodeFile), typer.echo)


@node.command()
def conduct(config: _File) -> None:
    """Wait until all devices have joined, tell every node when to begin, and of the end.

    Example: fadelab node conduct conductor.json
    """
    from fadelab.stack.conductor import ConductorFile, conduct  # noqa: PLC0415

    checked = read_file(config, ConductorFile)
    with sentences():
        asyncio.run(conduct(checked, typer.echo))


@node.command()
def agent(config: _File) -> None:
    """Run the agent that this container's number says, once the emulator has given it a link.

    Example: FADELAB_SLOT=1 fadelab node agent agent.json
    """
    with collector.importing():
        from fadelab.stack.agent_file import NodeAgentFile, device_number  # noqa: PLC0415
        from fadelab.stack.attend import Attendance, Claim  # noqa: PLC0415
        from fadelab_agent.agent import run_agent  # noqa: PLC0415
        from fadelab_agent.workbench import Workbench  # noqa: PLC0415

    checked = read_file(config, NodeAgentFile)
    device = device_number(os.environ, checked.work.devices)
    radio = checked.agent.radio_socket
    if radio is None:
        raise FadelabError(ExitCode.USAGE, f"{config}: agent.radio_socket is missing")
    with sentences():
        bench = Workbench(checked.work)
        asyncio.run(_emulator_is_there(radio))
        attendance = Attendance(
            checked.attendance, Claim(device=device, run_id=checked.agent.run_id)
        )
        own = checked.agent_of(device, attendance.clock_offset_s)
        try:
            asyncio.run(run_agent(own, [bench.device(device)]))
        finally:
            attendance.close()


@node.command()
def seal() -> None:
    """Take every interface of this network but loopback down, so that nothing leaves it unshaped.

    For pods, whose network comes with an interface. Needs CAP_NET_ADMIN.

    Example: fadelab node seal
    """
    from fadelab_emulation.attach.interfaces import list_interfaces  # noqa: PLC0415
    from fadelab_emulation.netlink.links import set_down  # noqa: PLC0415
    from fadelab_emulation.netlink.message import NetlinkSocket  # noqa: PLC0415

    with NetlinkSocket() as netlink:
        for one in list_interfaces(netlink):
            if one.is_up and not one.is_loopback:
                netlink.change([set_down(one.index)])
                typer.echo(f"{one.name} is down")


async def _emulator_is_there(socket: Path) -> None:
    """Wait for the radio plane, which answers when agents are expected."""
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=channel_options()) as channel:
        await channel.channel_ready()
