"""A device's side of what is settled before the uploads of a round."""

import grpc
import numpy as np
from numpy.typing import NDArray

from fadelab_agent.delivery import RETRY_PAUSE_S
from fadelab_agent.membership import RefusedError
from fadelab_agent.modulus_statistics import ModulusFigures
from fadelab_agent.terms import TaskParts
from fadelab_proto import codecs
from fadelab_proto import rounds_pb2 as pb
from fadelab_proto import rounds_pb2_grpc as pb_grpc

F32 = NDArray[np.float32]
# Asking again would not help: the server has no rounds for this task.
_FINAL = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT)


class Negotiation:
    """Asks for compensation and reports figures for one task.

    Args:
        channel: the data plane, without a mark.
        parts: what the task's loop works with.

    """

    def __init__(self, channel: grpc.aio.Channel, parts: TaskParts) -> None:
        self._stub = pb_grpc.RoundsStub(channel)
        self._work = parts.work
        self._membership = parts.membership
        self._clock = parts.clock
        self._log = parts.log

    async def compensation(self) -> F32 | None:
        """Return what stands in for this device's moduli if they are lost; None if nothing does.

        Raises:
            CodecError: if the server sent what is not of the format that it names.
            RefusedError: if it has no rounds for this task.

        """
        while True:
            try:
                return await self._fetch()
            except grpc.aio.AioRpcError as error:
                await self._pause("compensation", error)

    async def _fetch(self) -> F32 | None:
        assignment = self._membership.assignment(self._work.name)
        request = pb.CompensationRequest(
            session=assignment.session, task_index=assignment.task_index
        )
        moduli, found = np.zeros(self._work.dimension, dtype=np.float32), False
        async for part in self._stub.FetchCompensation(request, wait_for_ready=True):
            first, last = part.first, part.first + part.count
            if last > len(moduli):
                raise codecs.CodecError(f"moduli up to {last} of a model of {len(moduli)}")
            found = True
            if part.WhichOneof("moduli") == "constant":
                moduli[first:last] = part.constant
            else:
                codecs.decode(part.codec, part.payload, first=first, count=part.count).add_to(
                    moduli
                )
        # Rounding may leave a modulus that was next to 0 on either side of it.
        return np.maximum(moduli, 0) if found else None

    async def report(self, version: int, figures: ModulusFigures) -> pb.RoundPlan:
        """Return what the server decides; it answers when all devices have reported.

        Raises:
            RefusedError: if the server takes no such reports.

        """
        while True:
            assignment = self._membership.assignment(self._work.name)
            report = pb.RoundReport(
                session=assignment.session,
                task_index=assignment.task_index,
                version=version,
                moduli=pb.ModulusStatistics(
                    energy=figures.energy,
                    overlap=figures.overlap,
                    quantiser_variance=figures.quantiser_variance,
                ),
            )
            try:
                plan = await self._stub.Report(report, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                await self._pause("report", error)
                continue
            if plan.status == pb.ROUND_STATUS_REFUSED:
                raise RefusedError(plan.reason)
            if plan.status != pb.ROUND_STATUS_UNKNOWN_SESSION:
                return plan
            # The membership notices the same loss and joins again; take its new session.
            await self._clock.sleep_until(self._clock.now_s() + RETRY_PAUSE_S)

    async def _pause(self, what: str, error: grpc.aio.AioRpcError) -> None:
        cause = f"{error.code().name}: {error.details()}"
        if error.code() in _FINAL:
            raise RefusedError(cause) from None
        self._log.write("negotiation_interrupted", what=what, cause=cause)
        await self._clock.sleep_until(self._clock.now_s() + RETRY_PAUSE_S)
