"""Taking in one stream's packets, and saying which of them are durable."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple, Self

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import PacketError
from fadelab_proto.wire import FramingError, parse_upload_part
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.federation import Federation

BACKLOG_BYTES = 64 << 20
"""While more than this waits for the disk, no more is read: devices are held back by their own
connections."""

TELL_EVERY_S = 0.25
"""A stream on which packets come in hears of them this often. Each answer costs a frame and the
frame that acknowledges it, on a link that may be slow, and nobody waits for it: a device that comes
back asks what is there, and most updates are complete before anything else is worth telling."""


class Messages:
    """The messages of an upload stream.

    Whoever waits for the next one may be cancelled while ``patient`` is set: the message is then
    still there for the next who waits. That costs a task for each message.
    """

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.patient = False
        self._stream = stream
        self._next: asyncio.Future[bytes | None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self.patient:
            return await anext(self._stream)
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._stream, None))
        data = await asyncio.shield(self._next)
        self._next = None
        if data is None:
            raise StopAsyncIteration
        return data

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._next is not None:
            self._next.cancel()


class Received(NamedTuple):
    """What has durably been received of an update."""

    packets: list[pb.PacketRange]
    answered: int
    """The stream's last query that this answers."""


class Reading:
    """One upload stream of an update, read ahead of what is acknowledged.

    Packets are acknowledged when the journal has them for good. Meanwhile further ones are read, so
    that a stream does not wait for the disk after each. Packets that come in datagrams are only
    told of when the device asks; the stream hears at once when they complete the update.
    """

    def __init__(self, federation: Federation, assembly: UpdateAssembly, stream: Messages) -> None:
        self.error: Exception | None = None
        """Why a packet was not taken."""
        self.closed = False
        """Whether the device sends no more of the update."""
        self._federation = federation
        self._assembly = assembly
        self._stream = stream
        self._moved = asyncio.Event()
        self._asked = 0
        self._told_s = federation.clock.now_s()
        self._later: asyncio.Task[None] | None = None
        if stream.patient:
            assembly.watchers.add(self._moved.set)
        self._task = asyncio.create_task(self._read())

    async def durably_received(self) -> AsyncIterator[Received]:
        """Yield what has durably been received when it is more, or asked for; end with the stream.

        Raises:
            CheckpointError: if the journal cannot be written.

        """
        assembly = self._assembly
        counted, answered = len(assembly.received), 0
        while True:
            self._moved.clear()
            ended = self._task.done() or self._completed_elsewhere()
            news = len(assembly.received) != counted or self._asked != answered
            if news and not assembly.complete:
                if not (ended or self._asked != answered or self._may_tell()):
                    await self._moved.wait()
                    continue
                counted, answered = len(assembly.received), self._asked
                received = Received(assembly.received.messages(), answered)
                await self._federation.make_durable()
                yield received
            elif ended:
                break
            else:
                await self._moved.wait()
        if self._task.done():
            await self._task

    def _may_tell(self) -> bool:
        """Whether it is time for news; if not, it will be noticed when it is."""
        now_s, due_s = self._federation.clock.now_s(), self._told_s + TELL_EVERY_S
        if now_s >= due_s:
            self._told_s = now_s
        elif self._later is None or self._later.done():
            self._later = asyncio.create_task(self._wake(due_s))
        return now_s >= due_s

    async def _wake(self, when_s: float) -> None:
        await self._federation.clock.sleep_until(when_s)
        self._moved.set()

    def cancel(self) -> None:
        """Read no more."""
        if self._later is not None:
            self._later.cancel()
        self._assembly.watchers.discard(self._moved.set)
        self._task.cancel()

    def _completed_elsewhere(self) -> bool:
        """Whether there is nothing left to wait for, although the device has not said so here."""
        if not self._stream.patient:
            return False
        return self._assembly.complete or not self._federation.holds(self._assembly)

    async def _read(self) -> None:
        try:
            while not self._assembly.complete:
                data = await anext(self._stream, None)
                # Meanwhile the device may have begun another update on another stream.
                if data is None or not self._federation.holds(self._assembly):
                    return
                part = _after_the_header(data)
                if isinstance(part, pb.UploadClose):
                    self.closed = True
                    return
                if isinstance(part, pb.UploadQuery):
                    self._asked = part.number
                else:
                    self._federation.add_packet(self._assembly, part)
                self._moved.set()
                if self._federation.keeper.log.backlog_bytes > BACKLOG_BYTES:
                    await self._federation.make_durable()
        except (FramingError, PacketError) as error:
            self.error = error
        finally:
            self._moved.set()


def _after_the_header(data: bytes) -> memoryview | pb.UploadClose | pb.UploadQuery:
    part = parse_upload_part(data)
    if isinstance(part, pb.UploadHeader):
        raise FramingError("an upload has only one header")
    return part
