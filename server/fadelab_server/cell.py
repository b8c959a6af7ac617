"""The server's view of the radio: mean channels of all uplinks, and how it divides resources."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from fadelab_proto import cell_pb2 as pb
from fadelab_proto import cell_pb2_grpc as pb_grpc
from fadelab_proto.wire import channel_options
from fadelab_server.allocator.sp_fl_link import Access, Fading, Shares
from fadelab_server.allocator.uplink import F64

_ACCESS: dict[Access, pb.Access.ValueType] = {
    "fdm": pb.ACCESS_FDM,
    "tdm": pb.ACCESS_TDM,
    "parallel": pb.ACCESS_PARALLEL,
}


class CellError(RuntimeError):
    """The radio plane does not tell of channels, or does not divide them; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """What a base station knows of its devices' uplinks on average over fading."""

    noise_per_hz: F64
    """Noise on 1 Hz over the mean received power, 1/Hz; shape ``(devices,)``."""
    bandwidth_hz: float
    """Of all devices together."""
    efficiency: float
    """Share of the capacity that links have."""


@dataclass(frozen=True, slots=True)
class FixedLoads:
    """Bits on the wire that classes send within the deadline, whatever the channel carries."""

    sign_bits: float
    modulus_bits: float
    deadline_s: float


class Cell:
    """The radio plane of an emulator, over a local socket."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=channel_options())
        self._stub = pb_grpc.CellStub(self._channel)

    async def channels(self) -> Channels:
        """Return the mean channels as they are now.

        Raises:
            CellError: if the radio plane has none, or does not answer.

        """
        try:
            reply = await self._stub.ReadChannels(pb.ChannelsRequest(), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise CellError(f"the radio plane tells of no channels: {error.details()}") from error
        noise = np.array(reply.noise_per_hz, dtype=np.float64)
        return Channels(noise, reply.bandwidth_hz, reply.efficiency)

    async def allocate(
        self,
        devices: Sequence[int],
        shares: Shares,
        *,
        access: Access,
        fading: Fading,
        loads: FixedLoads | None = None,
    ) -> None:
        """Divide power and bandwidth; return when links follow.

        Args:
            devices: whose shares these are, in their order.
            shares: theirs.
            access: what the two classes of a device share.
            fading: whether they meet one fade.
            loads: given, classes keep to a rate and lose packets.

        Raises:
            CellError: if the radio plane refuses, or does not answer.

        """
        request = pb.AllocationRequest(
            shares=[
                pb.ClassShares(device=device, power=power, band=band, sign=sign)
                for device, power, band, sign in zip(
                    devices, shares.power, shares.band, shares.sign, strict=True
                )
            ],
            access=_ACCESS[access],
            common_fading=fading == "common",
        )
        if loads is not None:
            request.loads.CopyFrom(
                pb.FixedLoads(
                    sign_bits=loads.sign_bits,
                    modulus_bits=loads.modulus_bits,
                    deadline_s=loads.deadline_s,
                )
            )
        try:
            reply = await self._stub.Allocate(request, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise CellError(f"the radio plane divides nothing: {error.details()}") from error
        if reply.refusal:
            raise CellError(f"the radio plane refuses the allocation: {reply.refusal}")

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()
