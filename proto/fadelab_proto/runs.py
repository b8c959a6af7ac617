"""Runs of consecutive coordinates: ``[first, last)`` as rows of an integer array, shape (m, 2)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Runs = NDArray[np.int64]
"""In order, disjoint, none of them empty, with gaps between them."""

NO_RUNS: Runs = np.zeros((0, 2), dtype=np.int64)


def union(runs: Sequence[tuple[int, int]] | Runs) -> Runs:
    """Return what any of these cover; they may overlap and stand in any order."""
    if len(runs) == 0:
        return NO_RUNS
    ordered = np.array(runs, dtype=np.int64)
    ordered = ordered[np.argsort(ordered[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ordered[:, 1])
    begins = np.concatenate(([True], ordered[1:, 0] > reach[:-1]))
    ends = np.concatenate((begins[1:], [True]))
    return np.stack((ordered[begins, 0], reach[ends]), axis=1)


def complement(runs: Runs, dimension: int) -> Runs:
    """Return what these leave of the coordinates 0 .. ``dimension - 1``."""
    firsts = np.concatenate(([0], runs[:, 1]))
    lasts = np.concatenate((runs[:, 0], [dimension]))
    kept = firsts < lasts
    return np.stack((firsts[kept], lasts[kept]), axis=1)


def difference(runs: Runs, other: Runs, dimension: int) -> Runs:
    """Return what ``runs`` cover and ``other`` do not."""
    outside = complement(runs, dimension)
    return complement(union(np.concatenate((outside, other))), dimension)


def within(runs: Runs, first: int, last: int) -> list[tuple[int, int]]:
    """Return the parts of the runs that lie in ``[first, last)``, which is not empty."""
    begin = int(np.searchsorted(runs[:, 1], first, side="right"))
    end = int(np.searchsorted(runs[:, 0], last, side="left"))
    return [(max(first, int(a)), min(last, int(b))) for a, b in runs[begin:end]]
