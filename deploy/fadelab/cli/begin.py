"""``fadelab begin``: give a testbed whose processes others have started its time zero."""

import asyncio
from pathlib import Path
from typing import Annotated

import grpc
import typer

from fadelab.conduct import all_joined, give_start, local_channel, over
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_proto import federation_pb2_grpc as pb_grpc


def begin(
    sockets: Annotated[
        Path,
        typer.Argument(help="Folder of the server's socket `operator` and the emulator's `radio`."),
    ],
    devices: Annotated[int, typer.Argument(min=1, help="How many devices to wait for.")],
    patience_s: Annotated[float, typer.Option(min=1, help="How long to wait for them.")] = 300.0,
    time_scale: Annotated[
        float, typer.Option(help="Emulated seconds per second, as of the experiment's radio.")
    ] = 1.0,
) -> None:
    """Wait until all devices have joined, begin the run, and wait until it is over.

    Example: fadelab begin /run/fadelab/sockets 8
    """
    try:
        asyncio.run(_begin(sockets.absolute(), devices, patience_s, time_scale))
    except grpc.aio.AioRpcError as error:
        raise FadelabError(
            ExitCode.COMPONENT_FAILED, f"a component stopped answering: {error.details()}"
        ) from None


async def _begin(sockets: Path, devices: int, patience_s: float, time_scale: float) -> None:
    async with (
        local_channel(sockets / "operator") as operator,
        local_channel(sockets / "radio") as radio,
    ):
        stub = pb_grpc.OperatorStub(operator)
        await all_joined(stub, devices, patience_s)
        await give_start(stub, radio, time_scale)
        typer.echo(f"{devices} devices have joined: the run has begun")
        await over(stub)
        typer.echo("the run is over")
