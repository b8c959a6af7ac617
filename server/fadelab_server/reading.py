"""Taking in one stream's packets, and saying which of them are durable."""

import asyncio
from collections.abc import AsyncIterator

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import PacketError
from fadelab_proto.wire import FramingError, parse_upload_part
from fadelab_server.assembly import UpdateAssembly
from fadelab_server.federation import Federation

_BACKLOG_BYTES = 64 << 20
"""While more than this waits for the disk, no more is read: devices are held back by their own
connections."""


class Reading:
    """One upload stream of an update, read ahead of what is acknowledged.

    Packets are acknowledged when the journal has them for good. Meanwhile further ones are read, so
    that a stream does not wait for the disk after each.
    """

    def __init__(
        self, federation: Federation, assembly: UpdateAssembly, stream: AsyncIterator[bytes]
    ) -> None:
        self.error: Exception | None = None
        """Why a packet was not taken."""
        self.closed = False
        """Whether the device sends no more of the update."""
        self._federation = federation
        self._assembly = assembly
        self._stream = stream
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def durably_received(self) -> AsyncIterator[list[pb.PacketRange]]:
        """Yield what has durably been received, now and whenever it is more; end with the stream.

        Raises:
            CheckpointError: if the journal cannot be written.

        """
        assembly = self._assembly
        counted = -1
        while True:
            self._moved.clear()
            ended = self._task.done()
            if len(assembly.received) != counted and not (assembly.complete and counted >= 0):
                counted = len(assembly.received)
                received = assembly.received.messages()
                await self._federation.make_durable()
                yield received
            elif ended:
                break
            else:
                await self._moved.wait()
        await self._task

    def cancel(self) -> None:
        """Read no more."""
        self._task.cancel()

    async def _read(self) -> None:
        try:
            while not self._assembly.complete:
                data = await anext(self._stream, None)
                # Meanwhile the device may have begun another update on another stream.
                if data is None or not self._federation.holds(self._assembly):
                    return
                part = _packet_or_close(data)
                if isinstance(part, pb.UploadClose):
                    self.closed = True
                    return
                self._federation.add_packet(self._assembly, part)
                self._moved.set()
                if self._federation.keeper.log.backlog_bytes > _BACKLOG_BYTES:
                    await self._federation.make_durable()
        except (FramingError, PacketError) as error:
            self.error = error
        finally:
            self._moved.set()


def _packet_or_close(data: bytes) -> memoryview | pb.UploadClose:
    part = parse_upload_part(data)
    if isinstance(part, pb.UploadHeader):
        raise FramingError("an upload has only one header")
    return part
