"""The versions of one task's global model, newest and recent."""

from collections import OrderedDict
from collections.abc import Iterable
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

    A version exists as soon as it is computed and can be built upon; it is shown to others only
    when the decisions that led to it are durable: a version that somebody has seen never changes.
    """

    def __init__(self, versions: Iterable[Version], history_bytes: int) -> None:
        self.history_bytes = history_bytes
        self._versions: OrderedDict[int, Version] = OrderedDict()
        for version in versions:
            self._append(version)
        self._shown = self.newest

    @property
    def newest(self) -> Version:
        """The version computed last."""
        return next(reversed(self._versions.values()))

    @property
    def shown(self) -> Version:
        """The newest version that others may see."""
        return self._shown

    def publish(self, vector: F32, now_s: float) -> Version:
        """Make ``vector`` the newest version and drop the oldest beyond the budget."""
        version = Version(self.newest.number + 1, vector, now_s)
        self._append(version)
        return version

    def show(self, version: Version) -> None:
        """Let others see a version and all before it."""
        if version.number > self._shown.number:
            self._shown = version

    def get(self, number: int) -> Version | None:
        """Return a version if it is still held and may be seen."""
        return self._versions.get(number) if number <= self._shown.number else None

    def held(self) -> list[Version]:
        """Return all versions, oldest first, also those that may not be seen yet."""
        return list(self._versions.values())

    def after(self, number: int) -> list[Version]:
        """Return the versions held that are newer than ``number`` and may be seen, oldest first."""
        shown = self._shown.number
        return [own for own in self.held() if number < own.number <= shown]

    def _append(self, version: Version) -> None:
        version.vector.flags.writeable = False
        self._versions[version.number] = version
        keep = max(2, self.history_bytes // version.vector.nbytes)
        while len(self._versions) > keep:
            self._versions.popitem(last=False)
