"""``fadelab begin``: give a testbed whose processes others have started its time zero."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import grpc
import typer

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto import radio_pb2, radio_pb2_grpc
from fadelab_proto.wire import channel_options

# Between the last join and time zero: enough for both calls that announce it.
_LEAD_S = 0.2


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
    options = channel_options()
    async with (
        grpc.aio.insecure_channel(f"unix:{sockets}/operator", options=options) as operator,
        grpc.aio.insecure_channel(f"unix:{sockets}/radio", options=options) as radio,
    ):
        stub = pb_grpc.OperatorStub(operator)
        joined = 0

        async def all_joined() -> None:
            nonlocal joined
            async for status in stub.WatchStatus(pb.WatchStatusRequest(), wait_for_ready=True):
                joined = status.joined
                if joined == devices:
                    return

        try:
            await asyncio.wait_for(all_joined(), patience_s)
        except TimeoutError:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED,
                f"only {joined} of {devices} devices joined within {patience_s:g} s",
            ) from None
        begin_mono_s = time.monotonic() + _LEAD_S
        emulator = radio_pb2_grpc.EmulatorStub(radio)
        await emulator.Begin(radio_pb2.BeginRequest(start_mono_s=begin_mono_s), wait_for_ready=True)
        # The emulator lives by the kernel's clock, all others by the emulation's.
        await stub.Start(pb.StartRequest(start_mono_s=begin_mono_s * time_scale))
        typer.echo(f"{devices} devices have joined: the run has begun")
        await _over(stub)
        typer.echo("the run is over")


async def _over(stub: "pb_grpc.OperatorAsyncStub") -> None:
    """Wait for the end of the run: a status that says so, or the stream's end in good order."""
    async for status in stub.WatchStatus(pb.WatchStatusRequest()):
        if status.stopped:
            return
