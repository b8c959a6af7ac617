"""Being in the run: join, listen to directives, join again when the connection is lost."""

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc

from fadelab_agent.trust import ServerDoor
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_proto.join_proof import join_proof, token_key
from fadelab_proto.wire import PROTOCOL_VERSION

_RETRY_PAUSE_S = 0.5
_MOST_FORGOTTEN = 5
"""Challenges in a row that the server may have forgotten before the device believes its refusal."""
# Asking again would not help: the server does not understand the request, or does not want it.
FINAL_ERRORS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
)
_Reply = TypeVar("_Reply")


class RefusedError(RuntimeError):
    """The server does not take this device in; the message is the server's reason."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the present session allows for one task."""

    session: int
    task_index: int
    last_update: int


class Membership:
    """Keep a device in the run and publish what the server wants next.

    Args:
        channel: the data plane.
        run_id: the run's identifier.
        device: the device's number.
        offers: the tasks that the device can train.
        key: by it the server knows the device again after a restart of its agent; 0 if it has none.
        door: the way to the server, to ask it why it does not let the device connect.
        token: the device's join token, if it has one.

    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        run_id: int,
        device: int,
        offers: Sequence[pb.TaskOffer],
        clock: Clock,
        log: EventLog,
        key: int = 0,
        door: ServerDoor | None = None,
        token: str | None = None,
    ) -> None:
        self._channel = channel
        self._door = door
        self._token_key = None if token is None else token_key(token)
        self._stub = pb_grpc.FederationStub(channel)
        self._offers = list(offers)
        self._request = pb.JoinRequest(
            protocol_version=PROTOCOL_VERSION,
            run_id=run_id,
            device=device,
            incarnation=secrets.randbits(64),
            tasks=self._offers,
            device_key=key,
        )
        self._clock = clock
        self._log = log
        self._assignments: dict[str, Assignment] = {}
        self._directives: dict[int, pb.Directive] = {}
        self._news = asyncio.Condition()
        self.datagram_port = 0
        """UDP port at which the server takes datagrams; 0 if it takes none."""
        self.stopped = asyncio.Event()
        self.stop_reason = ""

    async def join(self) -> None:
        """Enter the run, waiting for the server if need be.

        Raises:
            RefusedError: if the server says no.
            HandshakeError: if the server does not let the device connect, or is not the right one.

        """
        reply = await self._accepted_by_tls(self._ask_to_join())
        if reply.status == pb.JOIN_STATUS_DRAINING:
            await self._stop(reply.reason)
            return
        if reply.status != pb.JOIN_STATUS_ACCEPTED:
            raise RefusedError(reply.reason)
        self.datagram_port = reply.datagram_port
        self._assignments = {
            offer.name: Assignment(reply.session, index, last)
            for offer, index, last in zip(
                self._offers, reply.task_indices, reply.last_updates, strict=True
            )
        }
        self._log.write("joined")

    async def _accepted_by_tls(self, asking: Coroutine[None, None, _Reply]) -> _Reply:
        """Return what ``asking`` returns, unless the handshake turns out to be hopeless."""
        jobs = [asyncio.ensure_future(asking)]
        # A plain server that was joined once has not begun to speak TLS: its links just come and go.
        if self._door is not None and (self._door.secure or not self._assignments):
            jobs.append(asyncio.ensure_future(self._door.hopeless(self._channel)))
        try:
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            return next(job for job in jobs if job.done()).result()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    async def _ask_to_join(self) -> pb.JoinReply:
        """Ask until the server answers; a challenge that it has forgotten is asked for anew."""
        forgotten = 0
        while True:
            try:
                await self._answer_challenge()
                reply = await self._stub.Join(self._request, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if error.code() in FINAL_ERRORS:
                    raise RefusedError(f"{error.code().name}: {error.details()}") from None
                self._log.write("join_failed", cause=f"{error.code().name}: {error.details()}")
                await self._clock.sleep_until(self._clock.now_s() + _RETRY_PAUSE_S)
                continue
            forgotten += reply.status == pb.JOIN_STATUS_STALE_CHALLENGE
            if reply.status != pb.JOIN_STATUS_STALE_CHALLENGE or forgotten == _MOST_FORGOTTEN:
                return reply

    async def _answer_challenge(self) -> None:
        if self._token_key is None:
            return
        request = pb.ChallengeRequest(device=self._request.device)
        challenge = await self._stub.Challenge(request, wait_for_ready=True)
        if not challenge.nonce:
            raise RefusedError(
                "this agent has a join token, but the server asks for none: it is another server, "
                "or its file lacks 'tokens'"
            )
        self._request.nonce = challenge.nonce
        self._request.proof = join_proof(self._token_key, self._request)

    async def follow(self) -> None:
        """Listen until the run is over; rejoin whenever the connection breaks."""
        while not self.stopped.is_set():
            session = next(iter(self._assignments.values())).session
            with contextlib.suppress(grpc.aio.AioRpcError):
                request = pb.WatchDirectivesRequest(session=session)
                async for directive in self._stub.WatchDirectives(request, wait_for_ready=True):
                    await self._take(directive)
            if not self.stopped.is_set():
                self._log.write("connection_lost")
                await self._clock.sleep_until(self._clock.now_s() + _RETRY_PAUSE_S)
                await self.join()

    def assignment(self, task: str) -> Assignment:
        """Return the present session's terms for a task."""
        return self._assignments[task]

    async def work_after(self, task: str, trained_version: int) -> pb.Directive | None:
        """Return the next directive to train ``task``, or None when the run is over.

        Args:
            task: name of the task.
            trained_version: version that was trained from last, -1 if none: a round of that
                version or an earlier one is not answered again.

        """
        async with self._news:
            while not self.stopped.is_set():
                directive = self._directives.get(self._assignments[task].task_index)
                if directive is not None and _is_due(directive, trained_version):
                    return directive
                await self._news.wait()
        return None

    async def _take(self, directive: pb.Directive) -> None:
        if directive.kind == pb.DIRECTIVE_KIND_STOP:
            await self._stop(directive.reason)
        elif directive.kind != pb.DIRECTIVE_KIND_WAIT:
            self._log.set_start(directive.start_mono_s)
            async with self._news:
                self._directives[directive.task_index] = directive
                self._news.notify_all()

    async def _stop(self, reason: str) -> None:
        self.stop_reason = reason
        self.stopped.set()
        async with self._news:
            self._news.notify_all()


def _is_due(directive: pb.Directive, trained_version: int) -> bool:
    if directive.kind == pb.DIRECTIVE_KIND_TRAIN_FREELY:
        return True
    return directive.version > trained_version
