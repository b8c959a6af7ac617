"""One task's life on a device in rounds with a deadline: train, report, hear, send, stop in time."""

import asyncio
from collections.abc import Callable

import grpc
import numpy as np
from numpy.typing import NDArray

from fadelab_agent.downlink import Model
from fadelab_agent.modulus_statistics import ModulusFigures, modulus_figures, with_signs
from fadelab_agent.negotiation import Negotiation
from fadelab_agent.spool import Spooled
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_agent.trainer_loop import TrainerLoop
from fadelab_agent.uplink import UploadOutcome
from fadelab_agent.upload_ways import UploadWays
from fadelab_agent.work import Trained
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import rounds_pb2
from fadelab_proto.seeds import Stream, generator

F32 = NDArray[np.float32]
_ZEROS = 1
"""Key of the draws that give zeros a sign, beside those of the codec."""


class RoundLoop(TrainerLoop):
    """Contribute to one task, in each round within the time that the server names.

    Args:
        terms: what holds for every update.
        parts: what it works with.
        channel: the data plane, without a mark.
        ways: where packets of each class go.
        break_off: ends the connections that packet classes have to themselves, with what waits in
            their buffers: the next round must not begin with the last one's bytes.

    """

    def __init__(
        self,
        terms: DeviceTerms,
        parts: TaskParts,
        *,
        channel: grpc.aio.Channel,
        ways: UploadWays,
        break_off: Callable[[], None],
    ) -> None:
        super().__init__(terms, parts)
        self._negotiation = Negotiation(channel, parts)
        self._ways = ways
        self._break_off = break_off

    async def _resume(self) -> int:
        """Forget what an earlier process had begun: its round will be over."""
        return -1

    async def _send(
        self,
        waiting: F32,
        model: Model,
        trained: Trained,  # noqa: ARG002 -- another loop reports it
        fetched_s: float,
    ) -> pb.UploadStatus.ValueType:
        await self._radio.contact()
        # What broke off the last round is to be mended before the time of this one runs.
        self._ways.connect()
        waiting = with_signs(waiting, self._draws())
        codec = self._decide(waiting, fetched_s)
        encoding = self._delivery.encode(codec, waiting, self._update_number)
        compensation = await self._negotiation.compensation()
        figures = modulus_figures(waiting, encoding, compensation)
        plan = await self._negotiation.report(model.version, figures)
        self._log_plan(plan, figures)
        if plan.status != rounds_pb2.ROUND_STATUS_SEND:
            return pb.UPLOAD_STATUS_UNSPECIFIED
        prepared = await self._delivery.prepare(
            encoding, update_id=self._update_number, base_version=model.version
        )
        self._ways.pace(
            {
                pb.PACKET_CLASS_SIGN: plan.sign_rate_bps,
                pb.PACKET_CLASS_MODULUS: plan.modulus_rate_bps,
            }
        )
        await self._clock.sleep_until(plan.begin_mono_s)
        return await self._deliver_until(prepared, plan.end_mono_s)

    def _draws(self) -> np.random.Generator:
        terms, task = self._terms, self._membership.assignment(self._work.name).task_index
        return generator(terms.seed, Stream.CODEC, terms.device, task, self._update_number, _ZEROS)

    async def _deliver_until(self, prepared: Spooled, end_s: float) -> pb.UploadStatus.ValueType:
        """Send until the server has all, or the time is over; 0 is no limit."""
        outcome = UploadOutcome()
        if not end_s:
            return await self._delivery.deliver(prepared, outcome)
        sending = asyncio.create_task(self._delivery.deliver(prepared, outcome))
        over = asyncio.create_task(self._clock.sleep_until(end_s))
        try:
            await asyncio.wait((sending, over), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                return sending.result()
            return pb.UPLOAD_STATUS_UNSPECIFIED
        finally:
            cut = not sending.done()
            for task in (sending, over):
                task.cancel()
            await asyncio.gather(sending, over, return_exceptions=True)
            if cut:
                self._break_off()

    def _log_plan(self, plan: rounds_pb2.RoundPlan, figures: ModulusFigures) -> None:
        self._log.write(
            "round_plan",
            task=self._work.name,
            update_id=self._update_number,
            status=rounds_pb2.RoundStatus.Name(plan.status),
            reason=plan.reason,
            begin_mono_s=plan.begin_mono_s,
            end_mono_s=plan.end_mono_s,
            energy=figures.energy,
            overlap=figures.overlap,
            quantiser_variance=figures.quantiser_variance,
        )
