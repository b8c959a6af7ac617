"""What a device remembers of the updates that it could not send in full.

Error feedback (Stich, Cordonnier and Jaggi, 2018, "Sparsified SGD with memory"): the part of an
update that compression or a closed contact window kept from the server is added to the next one,
so nothing is lost for good, only delayed.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class Memory(Protocol):
    """Decides what happens to the part of an update that was not sent."""

    def add(self, update: F32) -> F32:
        """Return the vector to send for ``update``, both of shape ``(dimension,)``.

        Raises:
            ValueError: if the shape is wrong.

        """
        ...

    def settle(self, sent: F32) -> None:
        """Report what reached the server of the vectors that ``add`` returned.

        Args:
            sent: shape ``(dimension,)``, zero wherever nothing arrived.

        Raises:
            ValueError: if the shape is wrong.

        """
        ...

    def state(self) -> F32 | None:
        """Return what must survive a restart of the agent, or None; not to be changed."""
        ...

    def restore(self, state: F32 | None) -> None:
        """Go on from what ``state`` returned.

        Raises:
            ValueError: if the shape is wrong.

        """
        ...


class ErrorMemory:
    """Keeps what was not sent and adds it to the next update.

    Sum of everything sent + memory = sum of all updates, up to the rounding of float32. An update
    that is never settled stays in memory as a whole.
    """

    def __init__(self, dimension: int) -> None:
        self._memory = np.zeros(dimension, dtype=np.float32)

    @property
    def memory(self) -> F32:
        """Return a copy of what is still owed to the server, shape ``(dimension,)``."""
        return self._memory.copy()

    def add(self, update: F32) -> F32:
        """Return memory + update."""
        self._memory += _checked(update, self._memory.shape)
        return self._memory.copy()

    def settle(self, sent: F32) -> None:
        """Take what was sent off the memory."""
        self._memory -= _checked(sent, self._memory.shape)

    def state(self) -> F32 | None:
        """Return what is owed to the server, shape ``(dimension,)``."""
        return self._memory

    def restore(self, state: F32 | None) -> None:
        """Owe this, and nothing else, to the server."""
        self._memory = restored(state, self._memory.shape)


class NoMemory:
    """Forgets whatever was not sent: plain compression without error feedback."""

    def __init__(self, dimension: int) -> None:
        self._shape = (dimension,)

    def add(self, update: F32) -> F32:
        """Return a copy of the update itself."""
        return _checked(update, self._shape).copy()

    def settle(self, sent: F32) -> None:
        """Check the shape; there is nothing to remember."""
        _checked(sent, self._shape)

    def state(self) -> F32 | None:
        """Return None: there is nothing to remember."""
        return None

    def restore(self, state: F32 | None) -> None:
        """Do nothing."""


def restored(state: F32 | None, shape: tuple[int, ...]) -> F32:
    """Return a copy of a memory's state; zeros if there is none."""
    return np.zeros(shape, np.float32) if state is None else _checked(state, shape).copy()


def _checked(vector: F32, shape: tuple[int, ...]) -> F32:
    if vector.shape != shape:
        raise ValueError(f"the vector has shape {vector.shape}, the memory {shape}")
    return vector
