"""The server's side of the radio plane: uplink statistics in, powers out."""

from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from fadelab_proto import radio_pb2 as pb
from fadelab_proto import radio_pb2_grpc as pb_grpc
from fadelab_proto.wire import channel_options
from fadelab_server.allocator.uplink import F64, UplinkStatistics
from fadelab_server.rounds.base import AllocationError

_PATIENCE_S = 30.0
"""Of the wall clock, for an emulator that answers within two ticks."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """What the radio plane says of the uplink."""

    statistics: UplinkStatistics
    floor_bps: float
    """No link is slower, whatever its SINR."""


class RadioAccess:
    """Calls the emulator's coordination service over its local socket."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=channel_options())
        self._stub = pb_grpc.CoordinationStub(self._channel)

    async def uplink(self) -> Uplink:
        """Return the present statistics.

        Raises:
            AllocationError: if the radio plane does not answer, or not with statistics.

        """
        try:
            report = await self._stub.ReadUplink(
                pb.ReadUplinkRequest(), wait_for_ready=True, timeout=_PATIENCE_S
            )
        except grpc.aio.AioRpcError as error:
            raise AllocationError(
                f"the radio plane tells no uplink statistics: {error.code().name}: "
                f"{error.details()}"
            ) from error
        return _uplink(report)

    async def set_powers(self, powers_w: F64) -> F64:
        """Have all powers in force at once; return the rates that links then have, in bit/s.

        Args:
            powers_w: of every device, shape ``(devices,)``.

        Raises:
            AllocationError: if the radio plane does not answer, or refuses.

        """
        request = pb.PowersRequest(powers_w=powers_w)
        try:
            reply = await self._stub.SetPowers(request, wait_for_ready=True, timeout=_PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            raise AllocationError(
                f"the radio plane sets no powers: {error.code().name}: {error.details()}"
            ) from error
        if reply.status != pb.POWER_STATUS_GRANTED:
            raise AllocationError(f"the radio plane sets no powers: {reply.reason}")
        return np.array(reply.rate_up_bps)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def _uplink(report: pb.UplinkReport) -> Uplink:
    devices = len(report.noise)
    try:
        statistics = UplinkStatistics(
            np.array(report.coherent_gain),
            np.array(report.own_interference),
            np.array(report.cross_interference).reshape(devices, devices),
            np.array(report.noise),
            report.bandwidth_hz,
            report.data_share,
            report.full_power_w,
        )
    except ValueError as error:
        raise AllocationError(f"the radio plane's uplink statistics are wrong: {error}") from error
    return Uplink(statistics, report.floor_bps)
