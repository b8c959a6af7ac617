"""Blocks of a vector seen group by group, so that one number per group applies to all its entries."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Pick = Callable[[NDArray[np.floating]], NDArray[np.floating]]

_SMALL_GROUP = 64


def groups_within(starts: Index, first: int, last: int) -> slice:
    """Return which groups have coordinates in ``first`` .. ``last - 1``."""
    if len(starts) == 1:
        return slice(0, 1)
    begin = int(starts.searchsorted(first, side="right")) - 1
    return slice(begin, int(starts.searchsorted(last, side="left")))


def by_group(
    block: NDArray[np.floating], first: int, starts: Index
) -> Iterator[tuple[NDArray[np.floating], Pick]]:
    """Yield views that cover a block, each with what takes one number per group to its shape.

    Groups of the same size become the rows of one view; small groups of different sizes share a
    view, so that the number of views stays small against the block.

    Args:
        block: coordinates ``first`` and following; contiguous.
        first: the block's first coordinate.
        starts: first coordinate of each group.

    """
    if len(starts) == 1:
        yield block, lambda values: values
        return
    groups = groups_within(starts, first, first + len(block))
    edges = np.concatenate((starts[groups], (first + len(block),))) - first
    edges[0] = 0
    sizes = edges[1:] - edges[:-1]
    if len(sizes) == 1:
        yield block, lambda values: values[groups]
        return
    turns = (sizes[1:] != sizes[:-1]).nonzero()[0] + 1
    if len(turns) * _SMALL_GROUP > len(block):
        yield block, lambda values: np.repeat(values[groups], sizes)
        return
    for begin, end in zip([0, *turns], [*turns, len(sizes)], strict=True):
        rows = block[edges[begin] : edges[end]].reshape(end - begin, -1)
        here = slice(groups.start + begin, groups.start + end)
        yield rows, lambda values, here=here: values[here, np.newaxis]  # type: ignore[misc]
