"""Getting one update to the server, through closing windows, broken streams and restarts."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message

from fadelab_agent.encoded_update import EncodedUpdate
from fadelab_agent.progress import (
    FRUITLESS_ATTEMPTS,
    RETRY_PAUSE_S,
    ProgressWatch,
    StalledError,
)
from fadelab_agent.radio import Radio
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_proto.wire import SERVICE, serialize_part

_UPLOAD = f"/{SERVICE}/UploadUpdate"
_Stream = grpc.aio.StreamStreamCall[Message | bytes, pb.UploadReply]
_GOING_ON = (pb.UPLOAD_STATUS_RECEIVING, pb.UPLOAD_STATUS_PARTIAL)


class ContactLostError(Exception):
    """The contact window ended."""


class SessionLostError(RuntimeError):
    """The server does not know this device's session: join again."""


@dataclass(slots=True)
class UploadOutcome:
    """How an upload ended, and what it took."""

    status: pb.UploadStatus.ValueType = pb.UPLOAD_STATUS_UNSPECIFIED
    reason: str = ""
    staleness: int = 0
    newest_version: int = 0
    acknowledged: set[int] = field(default_factory=set)
    """Sequence numbers of the packets that the server says it holds."""
    packets_sent: int = 0
    attempts: int = 0
    given_up: bool = False
    """Whether a contact window ended before everything was sent, and the rest will not be."""


class Uplink:
    """Upload updates over one channel, resuming where the server says it stands."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        radio: Radio,
        clock: Clock,
        log: EventLog,
        stall_s: float,
    ) -> None:
        self._call = channel.stream_stream(
            _UPLOAD,
            request_serializer=serialize_part,
            response_deserializer=pb.UploadReply.FromString,
        )
        self._radio = radio
        self._clock = clock
        self._log = log
        self._stall_s = stall_s

    async def upload(
        self,
        update: EncodedUpdate,
        outcome: UploadOutcome | None = None,
        *,
        gives_up: bool = False,
    ) -> UploadOutcome:
        """Send ``update`` until the server has taken or refused it.

        Args:
            update: what to send.
            gives_up: whether the end of the contact window ends the update too: in the next one the
                server is told to do with what has arrived, and nothing more is sent.
            outcome: filled in as the upload goes on. After a new join, give the one of the
                upload that lost its session, so that it is resumed and not begun again.

        Raises:
            StalledError: if several attempts in a row moved nothing although the link was open.
            SessionLostError: if the server asks for a new join.

        """
        outcome = outcome or UploadOutcome()
        fruitless = 0
        while True:
            await self._radio.contact()
            outcome.attempts += 1
            watch = self._watch(update)
            attempt = self._attempt(update, outcome, watch)
            try:
                if await (self._in_contact(attempt, outcome) if gives_up else attempt):
                    return outcome
                cause = "the server ended the stream early"
            except ContactLostError:
                cause = "the contact window closed"
            except grpc.aio.AioRpcError as error:
                cause = f"{error.code().name}: {error.details()}"
            except StalledError as error:
                cause = str(error)
            fruitless = 0 if watch.pieces else fruitless + 1
            self._log.write(
                "upload_interrupted",
                update_id=update.header.update_id,
                cause=cause,
                acknowledged=len(outcome.acknowledged),
                packets=len(update.packets),
            )
            if fruitless >= FRUITLESS_ATTEMPTS:
                raise StalledError(
                    f"update {update.header.update_id}: {fruitless} attempts in a row moved no "
                    f"packet beyond {len(outcome.acknowledged)} of {len(update.packets)}; "
                    f"last cause: {cause}"
                )
            await self._clock.sleep_until(self._clock.now_s() + RETRY_PAUSE_S)

    async def _in_contact(
        self, attempt: Coroutine[None, None, bool], outcome: UploadOutcome
    ) -> bool:
        """Return what an attempt does, or break it off at the end of the contact window."""
        trying = asyncio.create_task(attempt)
        lost = asyncio.create_task(self._radio.loss_of_contact())
        try:
            await asyncio.wait((trying, lost), return_when=asyncio.FIRST_COMPLETED)
            if trying.done():
                return trying.result()
            outcome.given_up = True
            raise ContactLostError
        finally:
            for task in (trying, lost):
                task.cancel()
            await asyncio.gather(trying, lost, return_exceptions=True)

    def _watch(self, update: EncodedUpdate) -> ProgressWatch:
        return ProgressWatch(
            self._radio,
            unit_bytes=max(len(packet) for packet in update.packets),
            minimum_s=self._stall_s,
            uplink=True,
        )

    async def _attempt(
        self, update: EncodedUpdate, outcome: UploadOutcome, watch: ProgressWatch
    ) -> bool:
        """Open one stream and send what is missing; return whether the server is done with it."""
        call = self._call(wait_for_ready=True)
        try:
            return await watch.guard(self._exchange(call, update, outcome, watch))
        finally:
            call.cancel()

    async def _exchange(
        self,
        call: _Stream,
        update: EncodedUpdate,
        outcome: UploadOutcome,
        watch: ProgressWatch,
    ) -> bool:
        await call.write(pb.UploadPart(header=update.header))
        if outcome.attempts > 1:
            # Hear first what the server kept, so that nothing acknowledged is sent again.
            first = await call.read()
            if not isinstance(first, pb.UploadReply):
                return False
            if self._done(first, outcome, watch):
                return True
        if outcome.given_up:
            await call.write(pb.UploadPart(close=pb.UploadClose()))
            await call.done_writing()
            return await self._hear(call, outcome, watch)
        sender = asyncio.create_task(self._send_missing(call, update, outcome))
        try:
            return await self._hear(call, outcome, watch)
        finally:
            sender.cancel()
            with contextlib.suppress(
                asyncio.CancelledError, asyncio.InvalidStateError, grpc.aio.AioRpcError
            ):
                await sender

    async def _hear(self, call: _Stream, outcome: UploadOutcome, watch: ProgressWatch) -> bool:
        """Read replies to the last; return whether the server is done with the update."""
        while isinstance(reply := await call.read(), pb.UploadReply):
            if self._done(reply, outcome, watch):
                return True
        return False

    async def _send_missing(
        self,
        call: _Stream,
        update: EncodedUpdate,
        outcome: UploadOutcome,
    ) -> None:
        for sequence, packet in enumerate(update.packets):
            if sequence not in outcome.acknowledged:
                await call.write(packet)
                outcome.packets_sent += 1
        await call.done_writing()

    def _done(self, reply: pb.UploadReply, outcome: UploadOutcome, watch: ProgressWatch) -> bool:
        confirmed = {n for part in reply.received for n in range(part.first, part.last + 1)}
        if confirmed - outcome.acknowledged:
            watch.moved()
        outcome.newest_version = reply.newest_version
        if reply.status in _GOING_ON:
            # A server that was restarted holds less than it confirmed before: its word counts.
            outcome.acknowledged = confirmed
            return False
        if reply.status == pb.UPLOAD_STATUS_REFUSED_SESSION:
            raise SessionLostError(reply.reason)
        if reply.status in (pb.UPLOAD_STATUS_CLOSED, pb.UPLOAD_STATUS_DISCARDED):
            outcome.acknowledged = confirmed
        outcome.acknowledged |= confirmed
        outcome.status = reply.status
        outcome.reason = reply.reason
        outcome.staleness = reply.staleness
        return True
