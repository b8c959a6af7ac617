"""What is sent to a device that asks for a model: the whole, or what has changed for it."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import google_crc32c

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Chunk, DenseF32
from fadelab_proto.codecs.changes import changed_entries
from fadelab_proto.packet import HEADER_BYTES, MAX_PACKETS
from fadelab_server.config import DeltaDownlink, ServerConfig
from fadelab_server.model_steps import sent_bytes
from fadelab_server.model_store import Version
from fadelab_server.task_state import TaskState

_BOOK_BYTES = 512
"""What remembering a delivery takes besides its payloads."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One model as it is sent; the packets depend on the two versions alone."""

    info: pb.ModelInfo
    chunks: tuple[Chunk, ...]


_Key = tuple[int | None, int]
"""The version that a device holds, or None for nothing, and the one that it is to get."""
_Work = Callable[[], Delivery | None]


class Deliveries:
    """Prepares what devices of one task fetch, once for all that hold the same version.

    Args:
        task: its versions, and the steps between them.
        config: which kind of downlink it is, the size of packets and the memory.

    """

    def __init__(self, task: TaskState, config: ServerConfig) -> None:
        self._task = task
        self._max_payload_bytes = config.max_payload_bytes
        self._memory_bytes = config.downlink_memory_bytes
        self._deltas = isinstance(config.downlink, DeltaDownlink)
        packets = -(-task.spec.dimension // (config.max_payload_bytes // 4))
        self._whole_bytes = 4 * task.spec.dimension + HEADER_BYTES * packets
        self._ready: OrderedDict[_Key, Delivery | None] = OrderedDict()
        """The one used last is the last; None where the whole model is shorter."""
        self._ready_bytes = 0
        self._preparing: dict[_Key, asyncio.Task[Delivery | None]] = {}

    async def prepare(
        self, version: Version, *, held: int | None = None, device: int | None = None
    ) -> Delivery:
        """Return what to send so that a device gets a version.

        Args:
            version: what it asks for.
            held: the version that it holds, if any; one that the server has no more is nothing.
            device: its number; the version that it fetched last is there, however old.

        """
        if held is not None:
            changes = await self._once((held, version.number), self._changes(held, version, device))
            if changes is not None:
                return changes
        whole = await self._once((None, version.number), partial(self._whole, version))
        assert whole is not None
        return whole

    async def _once(self, key: _Key, work: _Work | None) -> Delivery | None:
        """Do the work in a thread, unless it is done or under way."""
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        if key not in self._preparing:
            if work is None:
                return None
            task = asyncio.create_task(self._do(key, work))
            task.add_done_callback(lambda _: self._preparing.pop(key, None))
            self._preparing[key] = task
        # One device that goes away must not spoil it for the others.
        return await asyncio.shield(self._preparing[key])

    async def _do(self, key: _Key, work: _Work) -> Delivery | None:
        delivery = self._ready[key] = await asyncio.to_thread(work)
        self._ready_bytes += _memory(delivery)
        while self._ready_bytes > self._memory_bytes:
            _, oldest = self._ready.popitem(last=False)
            self._ready_bytes -= _memory(oldest)
        return delivery

    def _changes(self, held: int, version: Version, device: int | None) -> _Work | None:
        """Return what prepares the way from one version to another, if there is one."""
        if held == version.number:
            return partial(_delivery, version, (), base=held)
        if self._task.steps is not None:
            packets = self._task.steps.between(held, version.number)
            if packets is None or not self._worth_it(packets):
                return None
            return partial(_delivery, version, packets, base=held, adds=True)
        base = self._version(held, device) if self._deltas else None
        return None if base is None else partial(self._delta, base, version)

    def _version(self, number: int, device: int | None) -> Version | None:
        last = None if device is None else self._task.fetched.get(device)
        return last if last is not None and last.number == number else self._task.store.get(number)

    def _delta(self, base: Version, version: Version) -> Delivery | None:
        chunks = changed_entries(
            base.vector,
            version.vector,
            max_payload_bytes=self._max_payload_bytes,
            # Where nearly all have changed, saying which takes a bit for each.
            most_bytes=31 * self._whole_bytes // 32,
        )
        if chunks is None or not self._worth_it(chunks):
            return None
        return _delivery(version, chunks, base=base.number)

    def _whole(self, version: Version) -> Delivery:
        chunks = DenseF32().chunks(version.vector, max_payload_bytes=self._max_payload_bytes)
        return _delivery(version, chunks)

    def _worth_it(self, chunks: tuple[Chunk, ...]) -> bool:
        return len(chunks) <= MAX_PACKETS and sent_bytes(chunks) < self._whole_bytes


def _delivery(
    version: Version, chunks: tuple[Chunk, ...], *, base: int | None = None, adds: bool = False
) -> Delivery:
    info = pb.ModelInfo(
        version=version.number,
        dimension=len(version.vector),
        packets=len(chunks),
        checksum=google_crc32c.value(version.vector.astype("<f4").tobytes()),
        base_version=base,
        adds=adds,
    )
    return Delivery(info, chunks)


def _memory(delivery: Delivery | None) -> int:
    return _BOOK_BYTES + (0 if delivery is None else sent_bytes(delivery.chunks))
