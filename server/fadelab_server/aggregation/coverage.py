"""Which coordinates partial updates left out, so that each is averaged over those who spoke of it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.runs import Runs

_Numbers = NDArray[np.int64]


class MissingSamples:
    """How many samples each coordinate lacks: a step function, kept by its edges.

    Whole updates do not enter. The edges are never more than the coordinates.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Let no coordinate lack anything."""
        self._edges: _Numbers = np.zeros(0, dtype=np.int64)
        self._lacking: _Numbers = np.zeros(0, dtype=np.int64)

    def add(self, runs: Runs, samples: int) -> None:
        """Note that an update of ``samples`` samples says nothing of these coordinates."""
        edges = np.union1d(self._edges, runs)
        before = np.searchsorted(self._edges, edges, side="right")
        lacking = np.concatenate(([0], self._lacking))[before]
        change = np.zeros(len(edges), dtype=np.int64)
        change[np.searchsorted(edges, runs[:, 0])] += samples
        change[np.searchsorted(edges, runs[:, 1])] -= samples
        lacking += np.cumsum(change)
        steps = np.concatenate(([True], lacking[1:] != lacking[:-1]))
        self._edges, self._lacking = edges[steps], lacking[steps]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield first coordinate, the one after the last, and samples, where any are lacking."""
        for first, last, samples in zip(
            self._edges[:-1].tolist(),
            self._edges[1:].tolist(),
            self._lacking[:-1].tolist(),
            strict=True,
        ):
            if samples:
                yield first, last, samples

    def pending(self) -> dict[str, NDArray[np.generic]]:
        """Return the edges and what is lacking from each one on."""
        return {"missing_edges": self._edges, "missing_samples": self._lacking}

    def restore(self, pending: dict[str, NDArray[np.generic]]) -> None:
        """Continue from what :meth:`pending` returned."""
        self._edges = pending["missing_edges"].astype(np.int64)
        self._lacking = pending["missing_samples"].astype(np.int64)
