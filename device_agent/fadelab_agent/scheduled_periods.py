"""Asking the server for local periods, reporting on them, and waiting for the turn to upload."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import grpc

from fadelab_agent.membership import FINAL_ERRORS, Membership, RefusedError
from fadelab_proto import schedule_pb2 as pb
from fadelab_proto import schedule_pb2_grpc as pb_grpc
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_proto.period_report import DriftReport, PeriodReport

_RETRY_PAUSE_S = 0.2


class _Answer(Protocol):
    @property
    def status(self) -> pb.PeriodStatus.ValueType: ...
    @property
    def reason(self) -> str: ...


_AnyAnswer = TypeVar("_AnyAnswer", bound=_Answer)


class ScheduledPeriods:
    """One task's conversation with the server's scheduler.

    Args:
        channel: the data plane.
        membership: knows the session.
        task: name of the task.
        clock: for pauses.
        log: is told of broken calls.

    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        membership: Membership,
        *,
        task: str,
        clock: Clock,
        log: EventLog,
    ) -> None:
        self._stub = pb_grpc.ScheduleStub(channel)
        self._membership = membership
        self._task = task
        self._clock = clock
        self._log = log

    async def next(
        self, *, update_id: int, samples: int, upload_s: float, upload_j: float
    ) -> pb.PeriodPlan:
        """Return the next period's plan, GO or not, when the device is to download.

        Args:
            update_id: of the update that it is to end with.
            samples: that the device holds now.
            upload_s: what the upload before took; 0 if there was none.
            upload_j: and cost.

        Raises:
            RefusedError: if the server schedules nothing.

        """

        def ask() -> Awaitable[pb.PeriodPlan]:
            assignment = self._membership.assignment(self._task)
            return self._stub.NextPeriod(
                pb.PeriodRequest(
                    session=assignment.session,
                    task_index=assignment.task_index,
                    update_id=update_id,
                    samples=samples,
                    upload_s=upload_s,
                    upload_j=upload_j,
                ),
                wait_for_ready=True,
            )

        return await self._answered(ask)

    async def report(
        self,
        *,
        update_id: int,
        samples: int,
        report: PeriodReport,
        drift: Sequence[DriftReport],
        download_s: float,
        download_j: float,
        compute_j: float,
    ) -> bool:
        """Report a period whose training is over; return whether it is to be uploaded, and when.

        Args:
            update_id: as before.
            samples: that the device held when training began.
            report: of its gradients and data.
            drift: the idle stretch before training, then the active one.
            download_s: what the download took.
            download_j: of the base station's energy.
            compute_j: of the device's.

        Raises:
            RefusedError: if the server does not want such reports.

        """

        def ask() -> Awaitable[pb.Turn]:
            assignment = self._membership.assignment(self._task)
            return self._stub.ReportPeriod(
                pb.PeriodFigures(
                    session=assignment.session,
                    task_index=assignment.task_index,
                    update_id=update_id,
                    samples=samples,
                    variability=report.variability,
                    data_variance=report.data_variance,
                    gradient_sq=report.gradient_sq,
                    regularised_gradient_sq=report.regularised_gradient_sq,
                    smoothness=report.smoothness,
                    drift=[_figures(stretch) for stretch in drift],
                    download_s=download_s,
                    download_j=download_j,
                    compute_j=compute_j,
                ),
                wait_for_ready=True,
            )

        turn = await self._answered(ask)
        return turn.status == pb.PERIOD_STATUS_GO

    async def _answered(self, ask: Callable[[], Awaitable[_AnyAnswer]]) -> _AnyAnswer:
        while True:
            try:
                answer = await ask()
            except grpc.aio.AioRpcError as error:
                cause = f"{error.code().name}: {error.details()}"
                if error.code() in FINAL_ERRORS:
                    raise RefusedError(cause) from None
                self._log.write("schedule_failed", task=self._task, cause=cause)
            else:
                if answer.status == pb.PERIOD_STATUS_REFUSED:
                    raise RefusedError(f"the server refuses a period: {answer.reason}")
                if answer.status != pb.PERIOD_STATUS_UNKNOWN_SESSION:
                    return answer
            # The membership notices a lost session and joins again.
            await self._clock.sleep_until(self._clock.now_s() + _RETRY_PAUSE_S)


def _figures(stretch: DriftReport) -> pb.DriftFigures:
    return pb.DriftFigures(
        loss_before=stretch.loss_before,
        loss_after=stretch.loss_after,
        elapsed_s=stretch.elapsed_s,
        active=stretch.active,
    )
