"""The radio plane towards the server: mean channels, and the division of power and bandwidth."""

import asyncio
import math

import grpc
import numpy as np

from fadelab_emulation.class_division import ClassDivision
from fadelab_emulation.rate.class_rates import Access, ClassAllocation, Loads
from fadelab_emulation.tick_loop import TickLoop
from fadelab_proto import cell_pb2 as pb
from fadelab_proto import cell_pb2_grpc as pb_grpc

_ACCESS: dict[int, Access] = {
    pb.ACCESS_FDM: "fdm",
    pb.ACCESS_TDM: "tdm",
    pb.ACCESS_PARALLEL: "parallel",
}
_ROUNDING = 1e-6
_NO_CLASSES = (
    "there is nothing to divide: radio.classes needs classes named sign and modulus, and radio.rate "
    "must be of kind shannon"
)

ChannelsContext = grpc.aio.ServicerContext[pb.ChannelsRequest, pb.ChannelsReply]
AllocationContext = grpc.aio.ServicerContext[pb.AllocationRequest, pb.AllocationReply]


class CellService(pb_grpc.CellServicer):
    """What a server talks to that divides the radio's resources.

    Args:
        division: of the radio world; None if it divides nothing.
        loop: carries ticks out.
        devices: how many there are.

    """

    def __init__(self, division: ClassDivision | None, loop: TickLoop, devices: int) -> None:
        self._division = division
        self._loop = loop
        self._devices = devices

    async def ReadChannels(  # noqa: N802
        self,
        request: pb.ChannelsRequest,  # noqa: ARG002
        context: ChannelsContext,
    ) -> pb.ChannelsReply:
        """Tell the mean channels of the last tick."""
        division = self._division
        if division is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, _NO_CLASSES)
        return pb.ChannelsReply(
            noise_per_hz=division.noise_per_hz.tolist(),
            bandwidth_hz=division.rates.bandwidth_hz,
            efficiency=division.rates.efficiency,
        )

    async def Allocate(  # noqa: N802
        self,
        request: pb.AllocationRequest,
        context: AllocationContext,  # noqa: ARG002
    ) -> pb.AllocationReply:
        """Divide; answer when a tick with the division is in force."""
        division = self._division
        if division is None:
            return pb.AllocationReply(refusal=_NO_CLASSES)
        refusal = self._wrong(request)
        if refusal:
            return pb.AllocationReply(refusal=refusal)
        allocation = self._allocation(request)
        asyncio_loop, in_force = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            asyncio_loop.call_soon_threadsafe(in_force.set)

        self._loop.request_change(lambda: division.allocate(allocation), tell)
        await in_force.wait()
        return pb.AllocationReply()

    def _wrong(self, request: pb.AllocationRequest) -> str:
        """Return why an allocation cannot be; nothing if it can."""
        if request.access not in _ACCESS:
            return f"there is no access of number {request.access}"
        if request.HasField("loads") and not all(
            0 < size < math.inf
            for size in (
                request.loads.sign_bits,
                request.loads.modulus_bits,
                request.loads.deadline_s,
            )
        ):
            return "loads must be positive and finite"
        for own in request.shares:
            if own.device >= self._devices:
                return f"device {own.device} is not one of 0..{self._devices - 1}"
            if not all(0 <= share <= 1 for share in (own.power, own.band, own.sign)):
                return f"the shares of device {own.device} are not between 0 and 1"
        total = sum(own.band for own in request.shares)
        if total > 1 + _ROUNDING:
            return f"the bands add up to {total:g} of all bandwidth"
        return ""

    def _allocation(self, request: pb.AllocationRequest) -> ClassAllocation:
        power, band, sign = (np.full(self._devices, np.nan) for _ in range(3))
        for own in request.shares:
            power[own.device], band[own.device] = own.power, own.band
            sign[own.device] = own.sign
        loads = request.loads
        return ClassAllocation(
            power,
            band,
            sign,
            _ACCESS[request.access],
            request.common_fading,
            Loads(loads.sign_bits, loads.modulus_bits, loads.deadline_s)
            if request.HasField("loads")
            else None,
        )
