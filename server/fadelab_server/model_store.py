"""The versions of one task's global model, newest and recent."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Version:
    """One published model; the vector is read-only."""

    number: int
    vector: F32
    published_mono_s: float


class ModelStore:
    """Hold the newest version and as many earlier ones as fit into a byte budget.

    Earlier versions are needed to mix in updates that were trained from them, and for a validator
    that is a little behind. At least two versions are kept whatever the budget says.
    """

    def __init__(self, initial: Version, history_bytes: int) -> None:
        self.history_bytes = history_bytes
        self._keep = max(2, history_bytes // initial.vector.nbytes)
        self._versions: OrderedDict[int, Version] = OrderedDict()
        self._append(initial)

    @property
    def newest(self) -> Version:
        """The version published last."""
        return next(reversed(self._versions.values()))

    def publish(self, vector: F32, now_s: float) -> Version:
        """Make ``vector`` the newest version and drop the oldest beyond the budget."""
        version = Version(self.newest.number + 1, vector, now_s)
        self._append(version)
        return version

    def get(self, number: int) -> Version | None:
        """Return a version if it is still held."""
        return self._versions.get(number)

    def after(self, number: int) -> list[Version]:
        """Return the held versions newer than ``number``, oldest first."""
        return [version for version in self._versions.values() if version.number > number]

    def _append(self, version: Version) -> None:
        version.vector.flags.writeable = False
        self._versions[version.number] = version
        while len(self._versions) > self._keep:
            self._versions.popitem(last=False)
