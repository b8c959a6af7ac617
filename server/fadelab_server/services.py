"""The Federation and Operator services: control messages in and out of a Federation."""

import math
from collections.abc import AsyncIterator, Callable

import grpc

from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_server.federation import Federation
from fadelab_server.gatekeeper import Gatekeeper
from fadelab_server.rounds.desk import refused_report
from fadelab_server.sessions import JoinRefusedError, Session

_MAX_DEVICES_IN_STATUS = 64
_STATUS_INTERVAL_S = 0.1

JoinContext = grpc.aio.ServicerContext[pb.JoinRequest, pb.JoinReply]
DirectiveContext = grpc.aio.ServicerContext[pb.WatchDirectivesRequest, pb.Directive]
StatusContext = grpc.aio.ServicerContext[pb.WatchStatusRequest, pb.ServerStatus]


class FederationService(pb_grpc.FederationServicer):
    """What devices talk to."""

    def __init__(self, federation: Federation, gatekeeper: Gatekeeper) -> None:
        self._federation = federation
        self._gatekeeper = gatekeeper

    async def Challenge(  # noqa: N802
        self,
        request: pb.ChallengeRequest,
        context: grpc.aio.ServicerContext[pb.ChallengeRequest, pb.ChallengeReply],  # noqa: ARG002
    ) -> pb.ChallengeReply:
        """Draw a nonce that one Join of the device may answer."""
        return pb.ChallengeReply(nonce=self._gatekeeper.challenge(request.device))

    async def Join(self, request: pb.JoinRequest, context: JoinContext) -> pb.JoinReply:  # noqa: N802
        """Admit a device or say why not."""
        federation = self._federation
        if federation.draining or federation.stop_reason is not None:
            return pb.JoinReply(status=pb.JOIN_STATUS_DRAINING, reason="the run is over")
        try:
            self._gatekeeper.admit(request, context.auth_context())
            session = federation.join(request)
        except JoinRefusedError as refusal:
            federation.log.write(
                "join_refused",
                device=request.device,
                status=pb.JoinStatus.Name(refusal.status),
                reason=str(refusal),
                peer=context.peer(),
            )
            return pb.JoinReply(status=refusal.status, reason=str(refusal))
        indices = {task.spec.name: index for index, task in enumerate(federation.tasks)}
        offered = [indices[offer.name] for offer in request.tasks]
        return pb.JoinReply(
            status=pb.JOIN_STATUS_ACCEPTED,
            session=session.token,
            task_indices=offered,
            last_updates=[
                federation.tasks[index].last_update.get(request.device, 0) for index in offered
            ],
            datagram_port=federation.datagram_port,
        )

    async def WatchDirectives(  # noqa: N802
        self, request: pb.WatchDirectivesRequest, context: DirectiveContext
    ) -> AsyncIterator[pb.Directive]:
        """Send the current directives, and each that differs from the last one sent."""
        session = self._federation.sessions.find(request.session)
        if session is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown session: join first")
        self._federation.stream_opened(session)
        try:
            async for directive in self._directives(session):
                yield directive
        finally:
            self._federation.stream_closed(session)

    async def ReportUpdate(  # noqa: N802
        self,
        request: pb.UpdateReport,
        context: grpc.aio.ServicerContext[pb.UpdateReport, pb.UpdateAllocation],  # noqa: ARG002
    ) -> pb.UpdateAllocation:
        """Answer with what the device is given, once its round is decided."""
        federation = self._federation
        session = federation.sessions.find(request.session)
        if session is None:
            return pb.UpdateAllocation(
                status=pb.ALLOCATION_STATUS_REFUSED_SESSION, reason="unknown session: join first"
            )
        if request.task_index not in session.samples:
            return refused_report(f"the device does not train task {request.task_index}")
        return await federation.desk.report(request, session.device)

    async def _directives(self, session: Session) -> AsyncIterator[pb.Directive]:
        sent: list[pb.Directive] = []
        seen = -1
        while True:
            seen = await self._federation.orders.changed_since(seen)
            if self._federation.sessions.find(session.token) is None:
                return
            due = self._due(session)
            for directive in due:
                if directive not in sent:
                    yield directive
            sent = due
            if due[0].kind == pb.DIRECTIVE_KIND_STOP:
                return

    def _due(self, session: Session) -> list[pb.Directive]:
        federation = self._federation
        start = federation.start_mono_s
        if federation.stop_reason is not None:
            return [pb.Directive(kind=pb.DIRECTIVE_KIND_STOP, reason=federation.stop_reason)]
        if start is None:
            return [pb.Directive(kind=pb.DIRECTIVE_KIND_WAIT)]
        directives = []
        for index in sorted(session.samples):
            task = federation.tasks[index]
            if task.rule.synchronous:
                kind, version = pb.DIRECTIVE_KIND_TRAIN_ROUND, task.store.shown.number
            else:
                # The version is left out on purpose: devices fetch the newest one when they are
                # ready, and a notice of every version would cross every link for nothing.
                kind, version = pb.DIRECTIVE_KIND_TRAIN_FREELY, 0
            directives.append(
                pb.Directive(kind=kind, task_index=index, version=version, start_mono_s=start)
            )
        return directives


class OperatorService(pb_grpc.OperatorServicer):
    """What the launcher and the validator talk to, on a local socket."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self.validators: dict[int, int] = {}
        """Version watchers by task index."""

    async def WatchStatus(  # noqa: N802
        self,
        request: pb.WatchStatusRequest,  # noqa: ARG002
        context: StatusContext,  # noqa: ARG002
    ) -> AsyncIterator[pb.ServerStatus]:
        """Send the status now and after changes, and a last one when the server leaves."""
        clock = self._federation.clock
        seen = -1
        while not self._federation.draining:
            seen = await self._federation.changed.changed_since(seen)
            yield self._status()
            await clock.sleep_until(clock.now_s() + _STATUS_INTERVAL_S)
        yield self._status()

    async def Start(  # noqa: N802
        self,
        request: pb.StartRequest,
        context: grpc.aio.ServicerContext[pb.StartRequest, pb.StartReply],
    ) -> pb.StartReply:
        """Begin the run."""
        if not 0 < request.start_mono_s < math.inf:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "start_mono_s must be a time")
        self._federation.start(request.start_mono_s)
        return pb.StartReply()

    async def WatchVersions(  # noqa: N802
        self,
        request: pb.WatchVersionsRequest,
        context: grpc.aio.ServicerContext[pb.WatchVersionsRequest, pb.VersionNotice],
    ) -> AsyncIterator[pb.VersionNotice]:
        """Name every version, the initial one included; end after the last one of the run."""
        federation = self._federation
        index = request.task_index
        if index >= len(federation.tasks):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"there is no task {index}")
        self.validators[index] = self.validators.get(index, 0) + 1
        try:
            latest, seen = -1, -1
            while True:
                seen = await federation.changed.changed_since(seen)
                for version in federation.tasks[index].store.after(latest):
                    latest = version.number
                    yield pb.VersionNotice(
                        version=latest, published_mono_s=version.published_mono_s
                    )
                if federation.stop_reason is not None:
                    return
        finally:
            self.validators[index] -= 1
            federation.changed.notify()

    async def ReportValidation(  # noqa: N802
        self,
        request: pb.ValidationReport,
        context: grpc.aio.ServicerContext[pb.ValidationReport, pb.ValidationReply],
    ) -> pb.ValidationReply:
        """Log a reading."""
        if request.task_index >= len(self._federation.tasks):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"there is no task {request.task_index}"
            )
        self._federation.validated(request)
        return pb.ValidationReply()

    async def devices_told(self) -> None:
        """Return once every directive stream has ended."""
        await self._until(lambda: not any(s.streams for s in self._sessions()))

    async def validated(self) -> None:
        """Return once no validator is behind."""
        await self._until(lambda: not self._validators_busy())

    async def _until(self, condition: Callable[[], bool]) -> None:
        seen = -1
        while not condition():
            seen = await self._federation.changed.changed_since(seen)

    def _validators_busy(self) -> bool:
        federation = self._federation
        for index, reading in federation.validations.items():
            if reading.version < federation.tasks[index].store.shown.number:
                return True
        return any(self.validators.values())

    def _sessions(self) -> list[Session]:
        return self._federation.sessions.alive(self._federation.clock.now_s())

    def _status(self) -> pb.ServerStatus:
        federation = self._federation
        sessions = self._sessions()
        return pb.ServerStatus(
            started=federation.start_mono_s is not None,
            stopped=federation.stop_reason is not None,
            stop_reason=federation.stop_reason or "",
            joined=len(sessions),
            tasks=[self._task_status(index) for index in range(len(federation.tasks))],
            devices=[self._device_status(session) for session in sessions[:_MAX_DEVICES_IN_STATUS]],
        )

    def _task_status(self, index: int) -> pb.TaskStatus:
        task = self._federation.tasks[index]
        reading = self._federation.validations.get(index)
        return pb.TaskStatus(
            name=task.spec.name,
            version=task.store.shown.number,
            validated=reading is not None,
            validated_version=0 if reading is None else reading.version,
            loss=0 if reading is None else reading.loss,
            metric=0 if reading is None else reading.metric,
            updates=task.updates,
            largest_staleness=task.largest_staleness,
            bound=task.bound,
        )

    def _device_status(self, session: Session) -> pb.DeviceStatus:
        tasks = [self._federation.tasks[index] for index in sorted(session.samples)]
        under_way = [
            upload
            for index in sorted(session.samples)
            if (upload := self._federation.uploads.get((index, session.device))) is not None
        ]
        # Of several uploads at a time, the first task's stands for all.
        upload = under_way[0] if under_way else None
        return pb.DeviceStatus(
            device=session.device,
            joined=session.streams > 0,
            update_id=0 if upload is None else upload.header.update_id,
            packets_received=0 if upload is None else len(upload.received),
            packets=0 if upload is None else upload.header.packets,
            bytes_left=(
                0 if upload is None else upload.header.payload_bytes - upload.payload_bytes
            ),
            staleness=max(task.last_staleness.get(session.device, 0) for task in tasks),
            updates=sum(task.updates_by_device.get(session.device, 0) for task in tasks),
        )
