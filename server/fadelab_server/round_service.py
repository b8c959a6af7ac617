"""The Rounds service: what is settled with devices before the uploads of a round."""

from collections.abc import AsyncIterator, Mapping

import grpc

from fadelab_proto import rounds_pb2 as pb
from fadelab_proto import rounds_pb2_grpc as pb_grpc
from fadelab_proto.codecs import Groups, Uniform
from fadelab_proto.seeds import Stream, generator
from fadelab_server.federation import Federation
from fadelab_server.round_desk import RoundDesk

_COMPENSATION = Uniform(8, Groups(), "coordinates")
"""Devices need the moduli for one inner product: errors of a 255th of the largest do not matter."""

CompensationContext = grpc.aio.ServicerContext[pb.CompensationRequest, pb.CompensationPart]
ReportContext = grpc.aio.ServicerContext[pb.RoundReport, pb.RoundPlan]


class RoundService(pb_grpc.RoundsServicer):
    """What devices talk to.

    Args:
        federation: the run.
        desks: who conducts the rounds of each task, by its index.

    """

    def __init__(self, federation: Federation, desks: Mapping[int, RoundDesk]) -> None:
        self._federation = federation
        self._desks = desks

    async def FetchCompensation(  # noqa: N802
        self, request: pb.CompensationRequest, context: CompensationContext
    ) -> AsyncIterator[pb.CompensationPart]:
        """Send what stands in for the device's moduli, with 8 bits for each."""
        session = self._federation.sessions.find(request.session)
        if session is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown session: join first")
        desk = self._desks.get(request.task_index)
        if desk is None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"task {request.task_index} has no rounds"
            )
        moduli = desk.rule.compensation.moduli(session.device)
        config = self._federation.config
        if moduli is None:
            return
        if isinstance(moduli, float):
            dimension = self._federation.tasks[request.task_index].spec.dimension
            yield pb.CompensationPart(first=0, count=dimension, constant=moduli)
            return
        dither = generator(config.seed, Stream.DOWNLINK, request.task_index, session.device)
        encoding = _COMPENSATION.encode(
            moduli, max_payload_bytes=config.max_payload_bytes, generator=dither
        )
        for chunk in encoding.chunks:
            yield pb.CompensationPart(
                first=chunk.first, count=chunk.count, payload=chunk.payload, codec=chunk.codec
            )

    async def Report(  # noqa: N802
        self,
        request: pb.RoundReport,
        context: ReportContext,  # noqa: ARG002
    ) -> pb.RoundPlan:
        """Take a device's report; answer when its round is decided."""
        session = self._federation.sessions.find(request.session)
        if session is None:
            return pb.RoundPlan(
                status=pb.ROUND_STATUS_UNKNOWN_SESSION, reason="unknown session: join again"
            )
        desk = self._desks.get(request.task_index)
        if desk is None or request.WhichOneof("statistics") != "moduli":
            return pb.RoundPlan(
                status=pb.ROUND_STATUS_REFUSED, reason="this task takes no such reports"
            )
        return await desk.report(session.device, request.version, request.moduli)
