"""A radio plane of a cell-free uplink that any server can be given: no emulator behind it."""

from typing import Any

import numpy as np

from fadelab_proto import radio_pb2 as pb
from fadelab_proto import radio_pb2_grpc as pb_grpc
from fadelab_server.allocator.uplink import UplinkStatistics

FLOOR_BPS = 64_000.0


class Plane(pb_grpc.CoordinationServicer):
    """A radio plane that puts powers in force at once."""

    def __init__(self, statistics: UplinkStatistics) -> None:
        self.statistics = statistics
        self.powers_w: list[list[float]] = []
        self.refusal: str | None = None

    async def ReadUplink(self, request: Any, context: Any) -> pb.UplinkReport:  # noqa: N802
        one = self.statistics
        return pb.UplinkReport(
            coherent_gain=one.coherent_gain,
            own_interference=one.own_interference,
            cross_interference=one.cross_interference.ravel(),
            noise=one.noise,
            bandwidth_hz=one.bandwidth_hz,
            data_share=one.data_share,
            full_power_w=one.full_power_w,
            floor_bps=FLOOR_BPS,
        )

    async def SetPowers(self, request: pb.PowersRequest, context: Any) -> pb.PowersReply:  # noqa: N802
        if self.refusal is not None:
            return pb.PowersReply(status=pb.POWER_STATUS_REFUSED, reason=self.refusal)
        self.powers_w.append(list(request.powers_w))
        rates = self.statistics.rate_bps(np.array(request.powers_w) / self.statistics.full_power_w)
        return pb.PowersReply(
            status=pb.POWER_STATUS_GRANTED, rate_up_bps=np.maximum(rates, FLOOR_BPS)
        )
