"""The entries of largest magnitude, found exactly and without sorting the vector.

A regular sample of the magnitudes gives two bounds that almost surely enclose the k-th largest one.
One pass, in blocks that stay in the processor's cache, takes what reaches the upper bound and sets
aside what lies between the two; only these few are ranked. If the bounds turn out to miss, they
are replaced by the widest ones, so that the result is exact for every vector. What is not finite is
never below a bound, so it is found among these few.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fadelab_proto.codecs.base import F32, Index, check_finite

_BLOCK = 1 << 17
_SMALL = 1 << 12
"""Up to this many entries, ranking all of them is fastest."""
_STANDARD_DEVIATIONS = 4.0
_SPARSE = 1 / 8
"""Below this share, listing all candidates costs less than marking them in a bitmap."""
_SMALLEST = np.nextafter(np.float32(0), np.float32(1))
_INFINITY = np.float32(np.inf)

Mask = NDArray[np.bool_]


def largest(vector: F32, keep: int) -> Index:
    """Return the indices of the ``keep`` entries of largest magnitude, ascending.

    Of entries that tie for the last places, those of lowest index are taken: the result depends on
    the vector alone.

    Args:
        vector: shape ``(n,)``.
        keep: how many, at least 1; all, if there are no more than that.

    Raises:
        CodecError: if an entry is not finite.

    """
    n = len(vector)
    if n > _SMALL and keep < _SPARSE * n:
        low, _ = _bracket(vector, keep)
        candidates = _list(vector, low)
        magnitudes = np.abs(vector[candidates])
        if not np.isfinite(magnitudes).all():
            check_finite(vector)
        if len(candidates) >= keep:
            return candidates[_top(magnitudes, keep)]
    check_finite(vector)
    if keep >= n:
        return np.arange(n, dtype=np.int64)
    if n <= _SMALL:
        return np.flatnonzero(_top(np.abs(vector), keep)).astype(np.int64, copy=False)
    low, high = _bracket(vector, keep)
    mask, between = _divide(vector, low, high)
    missing = keep - int(np.count_nonzero(mask))
    if missing < 0 or (missing > len(between) and low > _SMALLEST):
        mask, between = _divide(vector, _SMALLEST, _INFINITY)
        missing = keep
    _complete(mask, vector, between, missing)
    return np.flatnonzero(mask).astype(np.int64, copy=False)


def by_magnitude(values: F32) -> Index:
    """Return the order of ``values`` from the largest magnitude to the smallest, ties as they come.

    Sorts by the low and then by the high half of the bits, for which numpy counts instead of
    comparing: three times as fast as one stable sort of the whole.
    """
    # Of floats that are not negative, the smaller has the smaller bits.
    falling = ~np.abs(values).view(np.uint32)
    order = np.argsort(falling.astype(np.uint16), kind="stable")
    high = (falling >> np.uint32(16)).astype(np.uint16)
    return order[np.argsort(high[order], kind="stable")].astype(np.int64, copy=False)


def _bracket(vector: F32, keep: int) -> tuple[np.float32, np.float32]:
    """Return magnitudes below and above which the ``keep``-th largest is hardly to be expected.

    The sample's stride shares no factor with the sizes of layers that are common, so that it does
    not keep meeting the same place of every filter.
    """
    n = len(vector)
    stride = n // max(1 << 10, min(1 << 16, n // 32))
    while math.gcd(stride, 2 * 3 * 5 * 7) > 1:
        stride += 1
    sample = np.abs(vector[::stride])
    size = len(sample)
    rank = keep / n * size
    margin = _STANDARD_DEVIATIONS * math.sqrt(rank * (1 - keep / n) + 1) + 2
    below = min(size - 1, math.ceil(rank + margin))
    above = math.floor(rank - margin)
    sample.partition([size - 1 - below, size - 1 - max(0, above)])
    low = max(sample[size - 1 - below], _SMALLEST)
    high = sample[size - 1 - above] if above >= 0 else _INFINITY
    return low, max(low, high)


def _list(vector: F32, low: np.float32) -> Index:
    """Return the indices of all entries but those of a magnitude below ``low``."""
    magnitudes = np.empty(_BLOCK, dtype=np.float32)
    mask = np.empty(_BLOCK, dtype=np.bool_)
    found = []
    for start in range(0, len(vector), _BLOCK):
        block = vector[start : start + _BLOCK]
        size = len(block)
        np.abs(block, out=magnitudes[:size])
        # Not "greater or equal", which NaN never is.
        np.less(magnitudes[:size], low, out=mask[:size])
        np.logical_not(mask[:size], out=mask[:size])
        indices = np.flatnonzero(mask[:size])
        indices += start
        found.append(indices)
    return np.concatenate(found, dtype=np.int64)


def _divide(vector: F32, low: np.float32, high: np.float32) -> tuple[Mask, Index]:
    """Mark all magnitudes of ``high`` or more, and list those from ``low`` to below ``high``."""
    magnitudes = np.empty(_BLOCK, dtype=np.float32)
    scratch = np.empty(_BLOCK, dtype=np.bool_)
    mask = np.empty(len(vector), dtype=np.bool_)
    between = []
    for start in range(0, len(vector), _BLOCK):
        block = vector[start : start + _BLOCK]
        size = len(block)
        marked = mask[start : start + size]
        np.abs(block, out=magnitudes[:size])
        np.greater_equal(magnitudes[:size], high, out=marked)
        np.greater_equal(magnitudes[:size], low, out=scratch[:size])
        np.not_equal(scratch[:size], marked, out=scratch[:size])
        indices = np.flatnonzero(scratch[:size])
        indices += start
        between.append(indices)
    return mask, np.concatenate(between, dtype=np.int64)


def _complete(mask: Mask, vector: F32, between: Index, missing: int) -> None:
    """Mark ``missing`` more entries: the largest of ``between``, then zeros."""
    if missing <= len(between):
        between = between[_top(np.abs(vector[between]), missing)]
    mask[between] = True
    if missing > len(between):
        mask[np.flatnonzero(vector == 0)[: missing - len(between)]] = True


def _top(magnitudes: F32, keep: int) -> Mask:
    """Mark the ``keep`` largest magnitudes; of those equal to the last one, the first in order."""
    if keep >= len(magnitudes):
        return np.ones(len(magnitudes), dtype=np.bool_)
    if keep == 0:
        return np.zeros(len(magnitudes), dtype=np.bool_)
    threshold = np.float32(0)
    if np.count_nonzero(magnitudes) > keep:
        cut = len(magnitudes) - keep
        threshold = np.partition(magnitudes, cut)[cut]
    mask = magnitudes > threshold
    missing = keep - int(np.count_nonzero(mask))
    mask[np.flatnonzero(magnitudes == threshold)[:missing]] = True
    return mask
