"""The Transfer service: models down and updates up, as streams of packets."""

from collections.abc import AsyncIterator, Sequence

import grpc

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import CodecError
from fadelab_proto.packet import MAX_PACKETS, MAX_PAYLOAD_BYTES, Packet, PacketError
from fadelab_proto.wire import (
    NEWEST_VERSION,
    SERVICE,
    FramingError,
    parse_upload_part,
    parse_whole_upload,
    serialize_part,
)
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.federation import Federation
from fadelab_server.model_store import Version
from fadelab_server.reading import Messages, Reading
from fadelab_server.sessions import Session
from fadelab_server.task_state import ContributionRefusedError, UpdateDiscardedError

Context = grpc.aio.ServicerContext[bytes, bytes | pb.ModelPart]

# Headers and codec parameters on top of 8 bytes for each coordinate (an index and a value), which
# no codec exceeds: anything larger is not an update of this model.
_SLACK_BYTES = 65536

# Refusals that point at a stranger or at a damaged peer; others, such as of updates to a round that
# is over, are part of any run.
_MALFORMED = (
    pb.UPLOAD_STATUS_REFUSED_SESSION,
    pb.UPLOAD_STATUS_REFUSED_SHAPE,
    pb.UPLOAD_STATUS_REFUSED_PACKET,
)


class UploadRefusedError(Exception):
    """An upload cannot go on; ``status`` and the message say why."""

    def __init__(self, status: pb.UploadStatus.ValueType, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class TransferService:
    """Serve ``FetchModel``, ``UploadUpdate`` and ``UploadWhole`` from a :class:`Federation`.

    Args:
        federation: the run.
        trusted: whether callers without a session may fetch models (the operator's socket).

    """

    def __init__(self, federation: Federation, *, trusted: bool = False) -> None:
        self._federation = federation
        self._trusted = trusted

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handler; packets pass through it without a protobuf copy."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "FetchModel": grpc.unary_stream_rpc_method_handler(
                    self.fetch_model,
                    request_deserializer=pb.FetchModelRequest.FromString,
                    response_serializer=serialize_part,
                ),
                "UploadUpdate": grpc.stream_stream_rpc_method_handler(
                    self.upload_update,
                    request_deserializer=None,
                    response_serializer=pb.UploadReply.SerializeToString,
                ),
                "UploadWhole": grpc.unary_unary_rpc_method_handler(
                    self.upload_whole,
                    request_deserializer=None,
                    response_serializer=pb.UploadReply.SerializeToString,
                ),
            },
        )

    async def fetch_model(
        self, request: pb.FetchModelRequest, context: Context
    ) -> AsyncIterator[pb.ModelPart | bytes]:
        """Send a version's info, then its packets."""
        federation = self._federation
        session = federation.sessions.find(request.session)
        if session is None and not self._trusted:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown session: join first")
        if request.task_index >= len(federation.tasks):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"there is no task {request.task_index}"
            )
        task = federation.tasks[request.task_index]
        store = task.store
        newest = request.version == NEWEST_VERSION
        version = store.shown if newest else store.get(request.version)
        if version is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"version {request.version} is not held; the newest is {store.shown.number}",
            )
        delivery = await federation.deliveries[request.task_index].prepare(
            version,
            held=request.held_version if request.HasField("held_version") else None,
            device=None if session is None else session.device,
        )
        if session is not None:
            task.fetched[session.device] = version
        yield pb.ModelPart(info=delivery.info)
        chunks = delivery.chunks
        for sequence, chunk in enumerate(chunks[request.skip_packets :], request.skip_packets):
            yield Packet(
                packet_class=pb.PACKET_CLASS_MODEL,
                codec=chunk.codec,
                task_index=request.task_index,
                device=0 if session is None else session.device,
                run_id=federation.config.run_id,
                update_id=0,
                base_version=version.number,
                first=chunk.first,
                count=chunk.count,
                sequence=sequence,
                packets=len(chunks),
                payload=chunk.payload,
            ).encode()

    async def upload_update(
        self,
        stream: AsyncIterator[bytes],
        context: Context,
    ) -> AsyncIterator[pb.UploadReply]:
        """Receive one update; every reply names the packets that are held by then."""
        messages = Messages(stream)
        try:
            async for reply in self._receive(messages):
                yield reply
        except (UploadRefusedError, CheckpointError) as refusal:
            yield self._refused(refusal, context)
        # A call that ends while the device is still sending fails on the device's side, and gRPC
        # drops the reply with it. The device hears the reply at once and stops sending itself.
        try:
            async for _ in messages:
                pass
        finally:
            messages.close()

    async def upload_whole(self, data: bytes, context: Context) -> pb.UploadReply:
        """Receive an update whose only packet comes with its header."""
        try:
            return await self._receive_whole(data)
        except (UploadRefusedError, CheckpointError) as refusal:
            return self._refused(refusal, context)

    def _refused(
        self, refusal: UploadRefusedError | CheckpointError, context: Context
    ) -> pb.UploadReply:
        if isinstance(refusal, CheckpointError):
            status = pb.UPLOAD_STATUS_REFUSED_STORAGE
        else:
            status = refusal.status
        if status in _MALFORMED:
            self._federation.log.write(
                "stream_refused",
                status=pb.UploadStatus.Name(status),
                reason=str(refusal),
                peer=context.peer(),
            )
        return pb.UploadReply(status=status, reason=str(refusal))

    async def _receive_whole(self, data: bytes) -> pb.UploadReply:
        try:
            header, packet = parse_whole_upload(data)
        except FramingError as error:
            raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_PACKET, str(error)) from error
        session = self._check_session(header)
        if self._already_taken(header, session.device):
            return await self._duplicate(header, session.device)
        base = self._check_header(header, session)
        if header.packets != 1 or header.datagram_classes:
            raise UploadRefusedError(
                pb.UPLOAD_STATUS_REFUSED_SHAPE,
                f"one message holds one packet, the update has {header.packets}, "
                f"and datagrams of {len(header.datagram_classes)} classes",
            )
        assembly = self._federation.open_upload(header, session, base)
        try:
            self._federation.add_packet(assembly, packet)
        except PacketError as error:
            raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_PACKET, str(error)) from error
        return await self._finish(assembly)

    async def _receive(self, stream: Messages) -> AsyncIterator[pb.UploadReply]:
        header = await _read_header(stream)
        session = self._check_session(header)
        if self._already_taken(header, session.device):
            yield await self._duplicate(header, session.device)
            return
        base = self._check_header(header, session)
        assembly = self._federation.open_upload(header, session, base)
        stream.patient = len(header.datagram_classes) > 0
        reading = Reading(self._federation, assembly, stream)
        try:
            async for received, answered in reading.durably_received():
                reply = self._reply(header, pb.UPLOAD_STATUS_RECEIVING, received)
                reply.answered = answered
                yield reply
        finally:
            reading.cancel()
        if reading.error is not None:
            # The packets that arrived whole stay: the device may resume and send this one again.
            raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_PACKET, str(reading.error))
        if assembly.complete or reading.closed or not self._federation.holds(assembly):
            yield await self._finish(assembly)
        else:
            received = assembly.received.messages()
            yield self._reply(header, pb.UPLOAD_STATUS_PARTIAL, received)

    async def _finish(self, assembly: UpdateAssembly) -> pb.UploadReply:
        header = assembly.header
        # Another stream of the same device may have been faster: a connection that seemed dead
        # can deliver its last packets after the device has resumed on a new one.
        if self._already_taken(header, assembly.device):
            return await self._duplicate(header, assembly.device)
        self._refuse_when_over()
        try:
            applied = await self._federation.finish_upload(assembly)
        except UpdateDiscardedError as error:
            raise UploadRefusedError(pb.UPLOAD_STATUS_DISCARDED, str(error)) from error
        except ContributionRefusedError as error:
            raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_RULE, str(error)) from error
        except CodecError as error:
            raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_PACKET, str(error)) from error
        status = pb.UPLOAD_STATUS_COMPLETE if assembly.complete else pb.UPLOAD_STATUS_CLOSED
        reply = self._reply(header, status, assembly.received.messages())
        reply.staleness = applied.staleness_versions
        return reply

    async def _duplicate(self, header: pb.UploadHeader, device: int) -> pb.UploadReply:
        # Taken is not yet durable: the stream that completed the update may still wait for that.
        await self._federation.make_durable()
        task = self._federation.tasks[header.task_index]
        taken = task.taken_in_part.get(device)
        if taken is not None and header.update_id == task.last_update[device]:
            return self._reply(header, pb.UPLOAD_STATUS_CLOSED, taken)
        return self._reply(header, pb.UPLOAD_STATUS_DUPLICATE)

    def _check_session(self, header: pb.UploadHeader) -> Session:
        session = self._federation.sessions.find(header.session)
        if session is None:
            raise UploadRefusedError(
                pb.UPLOAD_STATUS_REFUSED_SESSION, "unknown session: join again, then resume"
            )
        self._refuse_when_over()
        if header.task_index not in session.samples:
            raise UploadRefusedError(
                pb.UPLOAD_STATUS_REFUSED_SHAPE,
                f"the device did not offer task {header.task_index} when it joined",
            )
        return session

    def _refuse_when_over(self) -> None:
        if self._federation.draining or self._federation.stop_reason is not None:
            raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_DRAINING, "the run is over")

    def _already_taken(self, header: pb.UploadHeader, device: int) -> bool:
        taken = self._federation.tasks[header.task_index].last_update.get(device, 0)
        return 0 < header.update_id <= taken

    def _check_header(self, header: pb.UploadHeader, session: Session) -> Version:
        task = self._federation.tasks[header.task_index]
        _check_shape(
            header,
            task.spec.dimension,
            session.samples[header.task_index],
            fewest_packets=0 if task.rule.takes_silence else 1,
        )
        if header.fresh_reference and not task.rule.takes_silence:
            raise UploadRefusedError(
                pb.UPLOAD_STATUS_REFUSED_SHAPE,
                f"{type(task.rule).__name__} takes updates, not how they changed",
            )
        base = task.store.get(header.base_version)
        if base is None:
            raise UploadRefusedError(
                pb.UPLOAD_STATUS_REFUSED_BASE_VERSION,
                f"version {header.base_version} is not held; "
                f"the newest is {task.store.shown.number}",
            )
        refusal = task.refuse(device=session.device, base_version=header.base_version)
        if refusal is not None:
            raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_RULE, refusal)
        if header.datagram_classes and not self._federation.datagram_port:
            raise UploadRefusedError(
                pb.UPLOAD_STATUS_REFUSED_SHAPE, "this server takes no packets in datagrams"
            )
        return base

    def _reply(
        self,
        header: pb.UploadHeader,
        status: pb.UploadStatus.ValueType,
        received: Sequence[pb.PacketRange] = (),
    ) -> pb.UploadReply:
        return pb.UploadReply(
            status=status,
            received=received,
            newest_version=self._federation.tasks[header.task_index].store.shown.number,
        )


async def _read_header(stream: AsyncIterator[bytes]) -> pb.UploadHeader:
    first = await anext(stream, None)
    if first is None:
        raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_SHAPE, "the upload stream was empty")
    try:
        part = parse_upload_part(first)
    except FramingError as error:
        raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_PACKET, str(error)) from error
    if not isinstance(part, pb.UploadHeader):
        raise UploadRefusedError(
            pb.UPLOAD_STATUS_REFUSED_PACKET, "an upload must begin with its header"
        )
    return part


def _check_shape(
    header: pb.UploadHeader, dimension: int, samples: int, *, fewest_packets: int
) -> None:
    wrong = None
    if header.dimension != dimension:
        wrong = f"the update has {header.dimension} parameters, the model {dimension}"
    elif header.update_id == 0:
        wrong = "update numbers start at 1"
    elif not fewest_packets <= header.packets <= min(MAX_PACKETS, dimension):
        wrong = f"{header.packets} packets cannot carry {dimension} parameters"
    elif header.payload_bytes > min(
        8 * dimension + _SLACK_BYTES, header.packets * MAX_PAYLOAD_BYTES
    ):
        wrong = (
            f"{header.payload_bytes} payload bytes in {header.packets} packets "
            f"are too many for {dimension} parameters"
        )
    elif header.samples != samples:
        wrong = f"the update stands for {header.samples} samples, the device joined with {samples}"
    if wrong is not None:
        raise UploadRefusedError(pb.UPLOAD_STATUS_REFUSED_SHAPE, wrong)
