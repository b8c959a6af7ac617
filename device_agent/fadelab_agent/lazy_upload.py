"""Deciding, round by round, whether an innovation is sent or the server goes on without it."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.innovation import InnovationRound, UploadRule, squared_norm
from fadelab_agent.settling import settled
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Encoding
from fadelab_proto.events import EventLog

F32 = NDArray[np.float32]
_MOST_STEPS = 1000
TAKEN = (pb.UPLOAD_STATUS_COMPLETE, pb.UPLOAD_STATUS_CLOSED, pb.UPLOAD_STATUS_DUPLICATE)
"""How an upload ends of which at least a part counts."""


class LazyUpload:
    """What a device of a lazily aggregated task remembers besides its reference.

    Args:
        rule: decides which innovations are sent.
        task: name of the task.
        log: is told of every round that the device is silent in.

    """

    def __init__(self, rule: UploadRule, *, task: str, log: EventLog) -> None:
        self.fresh = True
        """Whether the server must forget what the device sent before this process began."""
        self._rule = rule
        self._task = task
        self._log = log
        self._model: F32 | None = None
        self._steps: deque[float] = deque(maxlen=_MOST_STEPS)
        self._error = self._last_error = 0.0
        self._silent_rounds = 0

    def consider(
        self, innovation: F32, encoding: Encoding, *, model: F32, update_id: int
    ) -> Encoding:
        """Return the code of an innovation, or one of no packets if it is not worth sending.

        What the server does not have a reference for is always sent.

        Args:
            innovation: update minus reference, shape ``(dimension,)``.
            encoding: what would be sent.
            model: the version of the model that was trained from.
            update_id: the update's number, for the log.

        """
        self._note_step(model)
        quantised = settled(encoding.chunks, innovation, None)
        self._error = squared_norm(innovation - quantised)
        now = InnovationRound(
            innovation=squared_norm(quantised),
            error=self._error,
            last_error=self._last_error,
            model_steps=tuple(self._steps),
            silent_rounds=self._silent_rounds + 1,
        )
        if self.fresh or self._rule.uploads(now):
            return encoding
        self._log.write(
            "upload_skipped",
            task=self._task,
            update_id=update_id,
            innovation=now.innovation,
            error=now.error,
            last_step=now.model_steps[0] if now.model_steps else None,
            silent_rounds=now.silent_rounds,
            bits_saved=encoding.nominal_bits,
        )
        return Encoding((), 0)

    def ended(self, header: pb.UploadHeader, status: pb.UploadStatus.ValueType) -> None:
        """Take note of how an update ended, one of no packets included."""
        if status not in TAKEN:
            return
        self.fresh = False
        if header.packets:
            self._last_error = self._error
            self._silent_rounds = 0
        else:
            self._silent_rounds += 1

    def _note_step(self, model: F32) -> None:
        """Remember how far the model has moved since this device last saw it."""
        if self._model is not None:
            self._steps.appendleft(squared_norm(model - self._model))
        self._model = model
