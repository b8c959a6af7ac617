"""Local SGD that goes on, a few steps at a time, until a new model comes."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.compute import compute_energy_j, compute_time_s
from fadelab_agent.config import ComputeConfig
from fadelab_agent.downlink import Model
from fadelab_agent.terms import TaskParts

F32 = NDArray[np.float32]


class LocalRun:
    """One task's local model between two downloads.

    Args:
        parts: of the task; its work takes as many steps at a time as the experiment calls local.
        compute: how long they take and what they cost.
        chunks: trainings that an earlier process of this device has done.

    """

    def __init__(self, parts: TaskParts, compute: ComputeConfig, *, chunks: int) -> None:
        self._work = parts.work
        self._compute = compute
        self._clock = parts.clock
        self._log = parts.log
        self._lock = parts.compute_lock
        self.chunks = chunks
        self.base_version = -1
        """The version that the local model descends from."""
        self.begun_s = 0.0
        """When it was downloaded."""
        self.steps = 0
        """Taken since then."""
        self._local: F32 = np.zeros(parts.work.dimension, dtype=np.float32)
        self._update: F32 = np.zeros_like(self._local)
        self._steps = self._computed = self._batch_size = 0
        self._loss = self._real_s = 0.0

    def begin(self, model: Model) -> None:
        """Go on from a new model; what was not taken is forgotten."""
        self.base_version = model.version
        self.begun_s = self._clock.now_s()
        self.steps = 0
        self._local = model.vector
        self._clear()

    @property
    def untaken(self) -> int:
        """Steps whose outcome was not taken yet."""
        return self._steps

    async def chunk(self, hurry: "asyncio.Future[None]") -> None:
        """Take the next few steps.

        Steps that are still being taken when ``hurry`` is done do not count, unless there would be
        nothing to take at all.
        """
        self.chunks += 1
        async with self._lock:
            begun_s = self._clock.now_s()
            trained = await asyncio.to_thread(self._work.train, self._local, self.chunks)
            real_s = self._clock.now_s() - begun_s
            steps, batch_size = trained.steps, trained.batch_size
            emulated_s = compute_time_s(self._compute, steps=steps, batch_size=batch_size)
            over = asyncio.ensure_future(self._clock.sleep_until(begun_s + emulated_s))
            try:
                waits = {over} if self._steps == 0 else {over, hurry}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                in_time = over.done()
            finally:
                over.cancel()
        self._computed += steps
        self._batch_size = batch_size
        self._real_s += real_s
        if not in_time:
            return
        self._local = self._local + trained.delta
        self._update += trained.delta
        self._loss += steps * trained.loss
        self._steps += steps
        self.steps += steps

    def take(self, update_id: int) -> F32:
        """Return what the untaken steps amount to, and forget it; shape ``(dimension,)``."""
        update = self._update
        steps, batch_size = self._computed, self._batch_size
        if steps:
            self._log.write(
                "trained",
                task=self._work.name,
                update_id=update_id,
                base_version=self.base_version,
                steps=self._steps,
                batch_size=batch_size,
                loss=self._loss / max(1, self._steps),
                real_s=round(self._real_s, 6),
                emulated_s=round(
                    compute_time_s(self._compute, steps=steps, batch_size=batch_size), 6
                ),
                compute_j=compute_energy_j(self._compute, steps=steps, batch_size=batch_size),
            )
        self._clear()
        return update

    def _clear(self) -> None:
        self._update = np.zeros_like(self._local)
        self._steps = self._computed = self._batch_size = 0
        self._loss = self._real_s = 0.0
