"""The Schedule service: local periods in and out of a desk."""

import grpc

from fadelab_proto import schedule_pb2 as pb
from fadelab_proto import schedule_pb2_grpc as pb_grpc
from fadelab_server.federation import Federation
from fadelab_server.periods.desk import PeriodDesk, Refusal
from fadelab_server.periods.figures import FiguresError, checked, figures_of
from fadelab_server.sessions import Session

PlanContext = grpc.aio.ServicerContext[pb.PeriodRequest, pb.PeriodPlan]
TurnContext = grpc.aio.ServicerContext[pb.PeriodFigures, pb.Turn]


class ScheduleService(pb_grpc.ScheduleServicer):
    """What devices talk to.

    Args:
        federation: the run.
        desk: decides.

    """

    def __init__(self, federation: Federation, desk: PeriodDesk) -> None:
        self._federation = federation
        self._desk = desk

    async def NextPeriod(  # noqa: N802
        self,
        request: pb.PeriodRequest,
        context: PlanContext,  # noqa: ARG002
    ) -> pb.PeriodPlan:
        """Answer with the next local period when it is to begin."""
        session = self._federation.sessions.find(request.session)
        if session is None:
            return pb.PeriodPlan(status=pb.PERIOD_STATUS_UNKNOWN_SESSION, reason=_UNKNOWN)
        try:
            self._check(session, request.task_index)
            if not 1 <= request.samples <= session.samples[request.task_index]:
                raise FiguresError("a device holds some of the samples that it joined with")  # noqa: TRY301
            upload_s, upload_j = checked(request.upload_s, request.upload_j)
        except FiguresError as error:
            return pb.PeriodPlan(status=pb.PERIOD_STATUS_REFUSED, reason=str(error))
        task, device = request.task_index, session.device
        if upload_s > 0:
            self._desk.planner.take_upload(
                task, device, request.update_id, upload_s=upload_s, upload_j=upload_j
            )
        found = await self._desk.next_period(
            task, device, update_id=request.update_id, samples=request.samples
        )
        if isinstance(found, Refusal):
            return pb.PeriodPlan(status=_status(found), reason=found.reason)
        plan = found.planned.plan
        return pb.PeriodPlan(
            status=pb.PERIOD_STATUS_GO,
            version=found.version,
            cpu_hz=plan.cpu_hz,
            batch_size=plan.batch_size,
            steps=plan.steps,
            idle_s=plan.idle_s,
        )

    async def ReportPeriod(  # noqa: N802
        self,
        request: pb.PeriodFigures,
        context: TurnContext,  # noqa: ARG002
    ) -> pb.Turn:
        """Take a period's figures; answer when the device is to upload."""
        session = self._federation.sessions.find(request.session)
        if session is None:
            return pb.Turn(status=pb.PERIOD_STATUS_UNKNOWN_SESSION, reason=_UNKNOWN)
        try:
            self._check(session, request.task_index)
            figures = figures_of(request)
        except FiguresError as error:
            return pb.Turn(status=pb.PERIOD_STATUS_REFUSED, reason=str(error))
        refusal = await self._desk.report(
            request.task_index, session.device, update_id=request.update_id, figures=figures
        )
        if refusal is not None:
            return pb.Turn(status=_status(refusal), reason=refusal.reason)
        return pb.Turn(status=pb.PERIOD_STATUS_GO)

    def _check(self, session: Session, task: int) -> None:
        if task not in session.samples:
            raise FiguresError(f"the device does not train task {task}")


_UNKNOWN = "unknown session: join again"


def _status(refusal: Refusal) -> pb.PeriodStatus.ValueType:
    return pb.PERIOD_STATUS_REST if refusal.rests else pb.PERIOD_STATUS_OVER
