"""Bringing the processes of a run together: wait for the devices, give time zero, see the end."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto import radio_pb2, radio_pb2_grpc
from fadelab_proto.wire import channel_options

# Between the last join and time zero: enough for both calls that announce it.
_LEAD_S = 0.2


def local_channel(socket: Path) -> grpc.aio.Channel:
    """Return a channel to a component's unix socket."""
    return grpc.aio.insecure_channel(f"unix:{socket}", options=channel_options())


@contextlib.contextmanager
def failures_told(tell: Callable[[FadelabError], None]) -> Iterator[None]:
    """See a run through within; whatever ends it before its time is told, and raised.

    Raises:
        FadelabError: what ended it; INTERRUPTED if it was cancelled, COMPONENT_FAILED if a call
            failed although nobody's end was reported.

    """
    try:
        yield
    except asyncio.CancelledError:
        error = FadelabError(ExitCode.INTERRUPTED, "interrupted before the run was over")
        tell(error)
        raise error from None
    except FadelabError as error:
        tell(error)
        raise
    except grpc.aio.AioRpcError as broken:
        # Nobody has ended, or that would have been reported in place of this.
        cause = FadelabError(
            ExitCode.COMPONENT_FAILED, f"a component stopped answering: {broken.details()}"
        )
        tell(cause)
        raise cause from None


async def all_joined(
    stub: "pb_grpc.OperatorAsyncStub",
    devices: int,
    patience_s: float,
    hopeless: Callable[[], bool] = lambda: False,
    *,
    what: str = "devices",
    hint: str = "",
) -> None:
    """Wait until so many devices have joined, or until there is no hope of it.

    Args:
        stub: the server's.
        devices: how many.
        patience_s: how long to wait.
        hopeless: asked at each of the server's news whether to go on waiting is in vain.
        what: what they are called where they have not.
        hint: what follows there.

    Raises:
        FadelabError: COMPONENT_FAILED, if they have not within ``patience_s``.

    """
    joined = 0

    async def wait() -> None:
        nonlocal joined
        async for status in stub.WatchStatus(pb.WatchStatusRequest(), wait_for_ready=True):
            joined = status.joined
            if joined == devices or hopeless():
                return

    try:
        await asyncio.wait_for(wait(), patience_s)
    except TimeoutError:
        raise FadelabError(
            ExitCode.COMPONENT_FAILED,
            f"only {joined} of {devices} {what} joined within {patience_s:.0f} s{hint}",
        ) from None


async def give_start(
    stub: "pb_grpc.OperatorAsyncStub", radio: grpc.aio.Channel, time_scale: float
) -> float:
    """Begin the run and return its time zero, in monotonic seconds of the emulation's clock."""
    begin_mono_s = time.monotonic() + _LEAD_S
    emulator = radio_pb2_grpc.EmulatorStub(radio)
    await emulator.Begin(radio_pb2.BeginRequest(start_mono_s=begin_mono_s), wait_for_ready=True)
    # The emulator lives by the kernel's clock, all others by the emulation's.
    start_mono_s = begin_mono_s * time_scale
    await stub.Start(pb.StartRequest(start_mono_s=start_mono_s))
    return start_mono_s


async def over(stub: "pb_grpc.OperatorAsyncStub") -> bool:
    """Wait for the end of the run; False if the server ended its stream without a word of it."""
    async for status in stub.WatchStatus(pb.WatchStatusRequest(), wait_for_ready=True):
        if status.stopped:
            return True
    return False
