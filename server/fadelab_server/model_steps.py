"""A model that moves by coded steps, so that devices need only the steps that they lack.

Whoever holds a version adds the next step to it, the server too, with the same float32 additions in
the same order: all hold the same vector bit for bit. What coding loses stays on the server and is
added to the next step (H. Tang et al., "DoubleSqueeze: Parallel Stochastic Gradient Descent with
Double-pass Error-Compensated Compression", ICML 2019, the server's part of Algorithm 1, here for
steps of the model instead of averaged gradients)::

    wanted   = x[v+1] - p[v] + residual
    p[v+1]   = p[v] + decoded(coded(wanted))
    residual = wanted - (p[v+1] - p[v])

with the model x that the aggregation rule made of the published one p.

Which steps a run makes hangs on its decisions and its seed alone, so a journal that is replayed makes
them again.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np

from fadelab_proto import codecs
from fadelab_proto.codecs import Chunk, Codec, CodecError
from fadelab_proto.packet import HEADER_BYTES
from fadelab_proto.seeds import Stream, generator
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.config import QuantisedDownlink, ServerConfig, TaskSpec
from fadelab_server.model_store import F32, ModelStore, Version

Step = tuple[Chunk, ...]
_BLOCK = 1 << 16


class ModelSteps:
    """Makes the steps of one task's model and keeps the latest.

    Args:
        codec: writes steps.
        dimension: parameters of the model.
        max_payload_bytes: upper bound of each packet's payload.
        memory_bytes: how much of payloads and headers is kept.
        draw: returns the dither for the step to a version.

    """

    def __init__(
        self,
        codec: Codec,
        *,
        dimension: int,
        max_payload_bytes: int,
        memory_bytes: int,
        draw: Callable[[int], np.random.Generator],
    ) -> None:
        self._codec = codec
        self._max_payload_bytes = max_payload_bytes
        self._memory_bytes = memory_bytes
        self._draw = draw
        self._residual = np.zeros(dimension, dtype=np.float32)
        self._steps: OrderedDict[int, Step] = OrderedDict()
        self._kept_bytes = 0

    @property
    def residual(self) -> F32:
        """What the published model still lacks; never changed in place."""
        return self._residual

    def publish(self, vector: F32, store: ModelStore, now_s: float) -> Version:
        """Make the next step towards ``vector`` and publish what it leads to.

        Where the codec cannot write a step, or would lose more than it keeps (as coarse unbiased
        rounding does, whose errors would add up), the model is published as it is.
        """
        before = store.newest.vector
        wanted = vector - before
        wanted += self._residual
        try:
            step = self._codec.encode(
                wanted,
                max_payload_bytes=self._max_payload_bytes,
                generator=self._draw(store.newest.number + 1),
            ).chunks
            published = before.copy()
            add_step(step, published)
        except CodecError:
            return self._publish_exactly(vector, store, now_s)
        moved = published - before
        residual = np.subtract(wanted, moved, out=moved)
        if not _energy(residual) <= _energy(wanted):
            return self._publish_exactly(vector, store, now_s)
        self._residual = residual
        version = store.publish(published, now_s)
        self._keep(version.number, step)
        return version

    def _publish_exactly(self, vector: F32, store: ModelStore, now_s: float) -> Version:
        whole = vector + self._residual
        self._residual = np.zeros_like(whole)
        return store.publish(whole, now_s)

    def _keep(self, number: int, step: Step) -> None:
        self._steps[number] = step
        self._kept_bytes += sent_bytes(step)
        while self._kept_bytes > self._memory_bytes:
            _, oldest = self._steps.popitem(last=False)
            self._kept_bytes -= sent_bytes(oldest)

    def between(self, held: int, target: int) -> Step | None:
        """Return all packets that lead from one version to a later one, if they are still there."""
        if not 0 < target - held <= len(self._steps):
            return None
        packets: list[Chunk] = []
        for number in range(held + 1, target + 1):
            step = self._steps.get(number)
            if step is None:
                return None
            packets += step
        return tuple(packets)

    def restore(self, residual: F32) -> None:
        """Continue from a snapshot; earlier steps are gone.

        Raises:
            CheckpointError: if the residual is of another model.

        """
        if residual.shape != self._residual.shape:
            raise CheckpointError(
                f"the checkpoint's residual has shape {residual.shape}, not {self._residual.shape}"
            )
        self._residual = residual


def build_steps(config: ServerConfig, task: TaskSpec) -> ModelSteps | None:
    """Return what makes a task's steps, or None if its versions are free."""
    downlink = config.downlink
    if not isinstance(downlink, QuantisedDownlink):
        return None
    return ModelSteps(
        downlink.codec.build(task.dimension, task.layers),
        dimension=task.dimension,
        max_payload_bytes=config.max_payload_bytes,
        memory_bytes=config.downlink_memory_bytes,
        draw=partial(generator, config.seed, Stream.DOWNLINK, config.tasks.index(task)),
    )


def add_step(step: Step, vector: F32) -> None:
    """Add coded entries to a vector as every receiver does.

    Raises:
        CodecError: if a packet does not hold entries.

    """
    for chunk in step:
        segment = codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count)
        if segment.part is not codecs.Part.VALUES:
            raise CodecError("a model moves by entries, not by their signs and moduli")
        segment.add_to(vector)


def sent_bytes(chunks: Step) -> int:
    """Return the bytes of all packets, headers included."""
    return sum(HEADER_BYTES + len(chunk.payload) for chunk in chunks)


def _energy(vector: F32) -> float:
    """Return the squared norm; in blocks that stay in the cache.

    By numpy's own loops: a linear-algebra library may add up in another order at a replay.
    """
    total = 0.0
    for first in range(0, len(vector), _BLOCK):
        total += float(np.add.reduce(np.square(vector[first : first + _BLOCK], dtype=np.float64)))
    return total
