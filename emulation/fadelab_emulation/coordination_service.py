"""What the aggregation server asks of the radio access network: uplink statistics and powers."""

import asyncio
from collections.abc import Callable

import grpc
import numpy as np

from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.radio_service import LinkBoard
from fadelab_emulation.rate.base import MIN_RATE_BPS
from fadelab_emulation.rate.cell_free.model import UplinkTerms
from fadelab_emulation.tick_loop import TickLoop
from fadelab_proto import radio_pb2 as pb
from fadelab_proto import radio_pb2_grpc as pb_grpc

SILENT_SHARE = 1e-9
"""Of the full power: what a device radiates that is given none. SINRs in decibels stay finite."""


class CoordinationService(pb_grpc.CoordinationServicer):
    """What the aggregation server talks to.

    Args:
        board: knows which powers are in force.
        loop: takes powers from the next computed tick on.
        uplink: returns the statistics of the uplink at full power, None where it has none.
        full_power_w: the largest power of a device.

    """

    def __init__(
        self,
        board: LinkBoard,
        loop: TickLoop,
        *,
        uplink: Callable[[], UplinkTerms | None],
        full_power_w: float,
    ) -> None:
        self._board = board
        self._loop = loop
        self._uplink = uplink
        self._full_power_w = full_power_w
        self._turn = asyncio.Lock()

    async def ReadUplink(  # noqa: N802
        self,
        request: pb.ReadUplinkRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[pb.ReadUplinkRequest, pb.UplinkReport],
    ) -> pb.UplinkReport:
        """Tell the terms of all SINRs, without small-scale fading."""
        terms = self._uplink()
        if terms is None:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "only links of kind cell_free with combining mr have statistics of this form",
            )
        statistics = terms.statistics
        return pb.UplinkReport(
            coherent_gain=statistics.coherent_gain,
            own_interference=statistics.own_interference,
            cross_interference=statistics.cross_interference.ravel(),
            noise=statistics.noise,
            bandwidth_hz=terms.bandwidth_hz,
            data_share=terms.data_share,
            full_power_w=self._full_power_w,
            floor_bps=MIN_RATE_BPS,
        )

    async def SetPowers(  # noqa: N802
        self,
        request: pb.PowersRequest,
        context: grpc.aio.ServicerContext[pb.PowersRequest, pb.PowersReply],  # noqa: ARG002
    ) -> pb.PowersReply:
        """Have one tick take all powers, and answer when it is in force."""
        powers_w = np.array(request.powers_w)
        refusal = self._refusal(powers_w)
        if refusal is not None:
            return pb.PowersReply(status=pb.POWER_STATUS_REFUSED, reason=refusal)
        powers_w = np.maximum(powers_w, SILENT_SHARE * self._full_power_w)
        # One after the other: each waits until its own powers are in force.
        async with self._turn:
            self._loop.request_powers(dict(enumerate(powers_w.tolist())))
            self._board.granted_w[:] = powers_w
            tick = await self._board.powers_in_force(powers_w)
        if tick is None:
            return pb.PowersReply(status=pb.POWER_STATUS_REFUSED, reason="the emulator ends")
        return pb.PowersReply(
            status=pb.POWER_STATUS_GRANTED, t_s=tick.t_s, rate_up_bps=tick.rate_up_bps
        )

    def _refusal(self, powers_w: FloatArray) -> str | None:
        if self._uplink() is None:
            return "the links are not those of a cell-free network, whose powers are set together"
        if len(powers_w) != self._board.devices:
            return f"{len(powers_w)} powers for {self._board.devices} devices"
        if not np.all((powers_w >= 0) & (powers_w <= self._full_power_w)):
            return f"powers must be at least 0 and at most {self._full_power_w:g} W"
        return None
