"""One attempt to get an update across: streams and datagrams side by side, and what the server says.

The first stream announces the update. Every further one repeats the announcement, so the server
makes one update of all that comes. Datagrams follow when it has answered, for it drops what nobody
has announced; in the end it is asked what it holds, and told that no more will come.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, field

import grpc

from fadelab_agent.datagram_uplink import DatagramTally
from fadelab_agent.encoded_update import EncodedUpdate
from fadelab_agent.progress import ProgressWatch
from fadelab_agent.upload_ways import Call, DatagramWay, LaneShare, StreamShare, UploadWays
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock

# An update of one packet that the link carries within this time is not announced first: that would
# secure its base version, tell the server of it, and have it refused earlier, but all by no more than
# this, and for twice the messages.
_MOMENT_S = 0.25
_GOING_ON = (pb.UPLOAD_STATUS_RECEIVING, pb.UPLOAD_STATUS_PARTIAL)
_IN_PART = (pb.UPLOAD_STATUS_CLOSED, pb.UPLOAD_STATUS_DISCARDED)
# What a stream that is over does to whoever still writes; its last word is told to the reader.
_BROKEN = (grpc.aio.AioRpcError, asyncio.InvalidStateError)


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
    resumes: bool = False
    """Whether an earlier process of this device may have sent some of them."""
    packets_sent: int = 0
    """In streams, those sent again included."""
    datagrams: dict[int, DatagramTally] = field(default_factory=dict)
    """What was sent otherwise, by the number of the packet class."""
    attempts: int = 0
    given_up: bool = False
    """Whether a contact window ended before everything was sent, and the rest will not be."""


class UploadAttempt:
    """One attempt; to be used once.

    Args:
        ways: the connections and sockets.
        update: what to send.
        outcome: what is known of it from earlier attempts; goes on being filled in.
        watch: told of everything that moves.
        clock: tells when the first datagram is sent.

    """

    def __init__(
        self,
        ways: UploadWays,
        update: EncodedUpdate,
        outcome: UploadOutcome,
        watch: ProgressWatch,
        clock: Clock,
    ) -> None:
        self._ways = ways
        self._update = update
        self._outcome = outcome
        self._watch = watch
        self._clock = clock
        self._lanes = ways.divide(update.packets)
        self._datagrams = [way for lane in self._lanes for way in lane.datagrams]
        self._heard = asyncio.Event()
        self._streams: dict[int, _Stream] = {}

    async def run(self) -> bool:
        """Send what is missing; return whether the server is done with the update.

        Raises:
            AioRpcError: if a connection fails.
            SessionLostError: if the server asks for a new join.
            DatagramTooLongError: if a packet that is to travel as a datagram does not fit.
            StalledError: if no datagram can be sent although in contact.

        """
        if self._at_once():
            return await self._send_whole()
        dscps = [share.dscp for lane in self._lanes for share in lane.streams]
        # Where datagrams are sent, the announcement and the last word go without a mark.
        first = 0 if self._datagrams or not dscps else dscps[0]
        header = self._header()
        try:
            control = self._open(first)
            await control.write(pb.UploadPart(header=header))
            if self._datagrams or self._outcome.attempts > 1 or self._outcome.resumes:
                # Hear first what the server kept, so that nothing acknowledged is sent again.
                await control.ask()
                reply = await control.read()
                if reply is None:
                    return False
                if self._take(reply, control, replaces=True):
                    return True
            if self._outcome.given_up:
                await control.write(pb.UploadPart(close=pb.UploadClose()))
                await control.end()
                return await self._hear(control)
            for dscp in dict.fromkeys(dscps):
                if dscp != first:
                    await self._open(dscp).write(pb.UploadPart(header=header))
            return await self._exchange(control)
        finally:
            for stream in self._streams.values():
                stream.cancel()

    def _at_once(self) -> bool:
        """Whether the update goes in one message."""
        outcome = self._outcome
        return (
            len(self._update.packets) == 1
            and not self._datagrams
            and not (outcome.attempts > 1 or outcome.resumes or outcome.given_up)
            and self._watch.ideal_s() <= _MOMENT_S
        )

    async def _send_whole(self) -> bool:
        (lane,), (packet,) = self._lanes, self._update.packets
        self._outcome.packets_sent += 1
        reply = await self._ways.send_whole(lane.streams[0].dscp, self._update.header, packet)
        return self._take(reply)

    def _header(self) -> pb.UploadHeader:
        header = pb.UploadHeader()
        header.CopyFrom(self._update.header)
        header.datagram_classes.extend(
            pb.PacketClass.ValueType(way.packet_class) for way in self._datagrams
        )
        return header

    def _open(self, dscp: int) -> "_Stream":
        self._streams[dscp] = _Stream(self._ways.call(dscp))
        return self._streams[dscp]

    # -- what the server says ----------------------------------------------------------------------

    async def _exchange(self, control: "_Stream") -> bool:
        """Send and hear at once; the first stream that ends tells how."""
        hearing = [asyncio.create_task(self._hear(stream)) for stream in self._streams.values()]
        sending = asyncio.create_task(self._send(control))
        try:
            await asyncio.wait((sending, *hearing), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                with contextlib.suppress(*_BROKEN):
                    sending.result()
                await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in hearing if task.done()).result()
        finally:
            await _end((sending, *hearing))

    async def _hear(self, stream: "_Stream") -> bool:
        """Read replies to the last; return whether the server is done with the update."""
        while (reply := await stream.read()) is not None:
            if self._take(reply, stream):
                return True
        return False

    def _take(
        self, reply: pb.UploadReply, stream: "_Stream | None" = None, *, replaces: bool = False
    ) -> bool:
        outcome = self._outcome
        confirmed = {n for part in reply.received for n in range(part.first, part.last + 1)}
        if confirmed - outcome.acknowledged:
            self._watch.moved()
        outcome.newest_version = reply.newest_version
        if stream is not None:
            stream.answered = max(stream.answered, reply.answered)
        self._heard.set()
        if reply.status in _GOING_ON:
            # A server that was restarted holds less than it confirmed before: its word counts.
            # Of several streams each tells what was durable at its own last turn.
            alone = len(self._streams) == 1
            outcome.acknowledged = (
                confirmed if replaces or alone else outcome.acknowledged | confirmed
            )
            return False
        if reply.status == pb.UPLOAD_STATUS_REFUSED_SESSION:
            raise SessionLostError(reply.reason)
        if reply.status in _IN_PART:
            outcome.acknowledged = confirmed
        outcome.acknowledged |= confirmed
        outcome.status = reply.status
        outcome.reason = reply.reason
        outcome.staleness = reply.staleness
        return True

    async def _ask(self, stream: "_Stream") -> Collection[int]:
        """Return the packets that the server durably holds, at least this stream's so far."""
        number = await stream.ask()
        while stream.answered < number:
            self._heard.clear()
            await self._heard.wait()
        return self._outcome.acknowledged

    # -- what is sent ------------------------------------------------------------------------------

    async def _send(self, control: "_Stream") -> None:
        await _together([self._send_lane(lane, control) for lane in self._lanes])
        if self._datagrams:
            await control.write(pb.UploadPart(close=pb.UploadClose()))
        if len(self._streams) == 1:
            await control.end()

    async def _send_lane(self, lane: LaneShare, control: "_Stream") -> None:
        # In one queue datagrams at the link's full rate would push the streams aside.
        await _together([self._send_stream(share) for share in lane.streams])
        for way in lane.datagrams:
            await self._send_datagrams(way, control)

    async def _send_stream(self, share: StreamShare) -> None:
        stream = self._streams[share.dscp]
        for sequence in share.sequences:
            if sequence not in self._outcome.acknowledged:
                await stream.write(self._update.packets[sequence])
                self._outcome.packets_sent += 1
        if self._datagrams:
            # Connections do not wait for each other: what is on its way on this one must not come
            # after the last word on another.
            await self._ask(stream)

    async def _send_datagrams(self, way: DatagramWay, control: "_Stream") -> None:
        tally = self._outcome.datagrams.setdefault(way.packet_class, DatagramTally())
        if tally.first_s is None:
            tally.first_s = self._clock.now_s()
        await way.sender.send(
            self._update.packets,
            tally,
            deadline_s=math.inf if way.deadline_s is None else tally.first_s + way.deadline_s,
            held=lambda: self._ask(control),
            skip=frozenset(self._outcome.acknowledged),
            on_sent=self._watch.moved,
        )


class _Stream:
    """One upload stream; gRPC allows one write at a time."""

    def __init__(self, call: Call) -> None:
        self.asked = self.answered = 0
        """Queries that were sent, and the last one that was answered."""
        self._call = call
        self._writing = asyncio.Lock()

    async def write(self, part: pb.UploadPart | bytes) -> None:
        async with self._writing:
            await self._call.write(part)

    async def ask(self) -> int:
        """Ask what the server holds; return the number that the answer will bear."""
        self.asked += 1
        await self.write(pb.UploadPart(query=pb.UploadQuery(number=self.asked)))
        return self.asked

    async def end(self) -> None:
        """Say that nothing more comes."""
        await self._call.done_writing()

    async def read(self) -> pb.UploadReply | None:
        """Return the next reply; None at the end."""
        reply = await self._call.read()
        return reply if isinstance(reply, pb.UploadReply) else None

    def cancel(self) -> None:
        self._call.cancel()


async def _together(works: Sequence[Awaitable[None]]) -> None:
    """Await all of these; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Future[bool] | asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
