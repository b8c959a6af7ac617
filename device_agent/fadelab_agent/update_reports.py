"""Telling the server of an update before it is uploaded, and hearing what the round gives it."""

from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from fadelab_agent.membership import FINAL_ERRORS, Membership, RefusedError
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog

_RETRY_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Allotted:
    """What the device is given for one upload."""

    power_w: float
    """0: nothing is to be uploaded in this round."""
    rate_bps: float
    """Predicted."""
    upload_s: float
    """Predicted."""
    numbers: Mapping[str, float]


class UpdateReports:
    """One task's reports.

    Args:
        channel: the data plane.
        membership: knows the session.
        task: name of the task.
        clock: for pauses.
        log: is told of reports and answers.

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
        self._stub = pb_grpc.FederationStub(channel)
        self._membership = membership
        self._task = task
        self._clock = clock
        self._log = log

    async def allotted(
        self, *, update_id: int, base_version: int, numbers: Mapping[str, float]
    ) -> Allotted | None:
        """Report an update; return what it is given, or None if its round is over.

        Raises:
            RefusedError: if the server does not want such reports.

        """
        while True:
            assignment = self._membership.assignment(self._task)
            report = pb.UpdateReport(
                session=assignment.session,
                task_index=assignment.task_index,
                update_id=update_id,
                base_version=base_version,
                numbers=dict(numbers),
            )
            begun_s = self._clock.now_s()
            try:
                answer = await self._stub.ReportUpdate(report, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                cause = f"{error.code().name}: {error.details()}"
                if error.code() in FINAL_ERRORS:
                    raise RefusedError(cause) from None
                self._log.write("report_failed", update_id=update_id, cause=cause)
            else:
                if answer.status == pb.ALLOCATION_STATUS_REFUSED_REPORT:
                    raise RefusedError(f"the server refuses a report: {answer.reason}")
                if answer.status != pb.ALLOCATION_STATUS_REFUSED_SESSION:
                    return self._taken(answer, update_id, self._clock.now_s() - begun_s)
            # The membership notices a lost session and joins again.
            await self._clock.sleep_until(self._clock.now_s() + _RETRY_PAUSE_S)

    def _taken(
        self, answer: pb.UpdateAllocation, update_id: int, waited_s: float
    ) -> Allotted | None:
        self._log.write(
            "allotted",
            task=self._task,
            update_id=update_id,
            status=pb.AllocationStatus.Name(answer.status),
            power_w=answer.power_w,
            rate_bps=round(answer.rate_bps),
            upload_s=answer.upload_s,
            waited_s=round(waited_s, 6),
        )
        if answer.status == pb.ALLOCATION_STATUS_SILENT:
            return Allotted(0.0, answer.rate_bps, answer.upload_s, dict(answer.numbers))
        if answer.status == pb.ALLOCATION_STATUS_GRANTED:
            return Allotted(answer.power_w, answer.rate_bps, answer.upload_s, dict(answer.numbers))
        return None
