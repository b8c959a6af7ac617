"""The scheduling tensors R, U and X of DMA-FL (arXiv 2305.13503, definitions 3 and 4).

Aggregation g' turns version g' into version g' + 1 (6). ``R[i, g]`` says that device i received
version g, ``U[i, g']`` that its model made aggregation g', and ``X[i, g, g']`` that it received
version g and completed aggregation g' with it::

    X[i, g, g'] = R[i, g] U[i, g'] prod_{k = g .. g'-1} (1 - U[i, k])

The paper's (15) differs twice. It exchanges R and U. And its product begins at k = g + 1, which is
right if uploads are numbered by the version that they make; by (6), (18) and (19), where a model
may come back before another one (g' = g), they are numbered by the version that they meet, and
then a device that receives version g, returns it at once and receives the next one would count
twice.
"""

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Index = NDArray[np.int64]


def completions(received: F64, uploaded: F64) -> F64:
    """Return X of one task.

    Args:
        received: R, shape ``(devices, aggregations)``; 0 and 1, or between them if relaxed.
        uploaded: U, the same shape.

    Returns:
        X, shape ``(devices, aggregations, aggregations)``, by version received and aggregation
        completed; 0 where the aggregation is the earlier one.

    """
    if received.ndim != 2 or received.shape != uploaded.shape:
        raise ValueError(
            f"receptions and uploads must be arrays (devices, aggregations) of one shape; got "
            f"{received.shape} and {uploaded.shape}"
        )
    devices, aggregations = received.shape
    found = np.zeros(
        (devices, aggregations, aggregations), dtype=np.result_type(received, uploaded)
    )
    for first in range(aggregations):
        open_still = received[:, first]
        for last in range(first, aggregations):
            found[:, first, last] = open_still * uploaded[:, last]
            open_still = open_still * (1 - uploaded[:, last])
    return found


def staleness(completed: F64) -> int:
    """Return K_j, the largest ``g' - g`` with X = 1; 0 without any completion.

    Args:
        completed: X of one task.

    """
    _, first, last = np.nonzero(completed > 0.5)
    return int((last - first).max()) if len(first) else 0


def staleness_by_aggregation(completed: F64) -> Index:
    """Return ``g' - g`` of every aggregation, shape ``(aggregations,)``; -1 where none completed.

    Args:
        completed: X of one task.

    """
    found = np.full(completed.shape[2], -1, dtype=np.int64)
    _, first, last = np.nonzero(completed > 0.5)
    np.maximum.at(found, last, last - first)
    return found


def unmatched(completed: F64) -> Index:
    """Return the aggregations that do not complete exactly one reception.

    Problem P of the paper does not ask for this, and without it its bound could be made zero by
    uploads that answer no reception.

    Args:
        completed: X of one task.

    """
    return np.flatnonzero(np.abs(completed.sum(axis=(0, 1)) - 1) > 1e-9)
