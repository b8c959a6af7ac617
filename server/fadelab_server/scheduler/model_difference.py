"""How far two global models are apart: lemma 1 of DMA-FL (arXiv 2305.13503).

With ``Psi[g, g'] = w[g] - w[g']`` and the accumulated local gradients ``a[i, g] = w[g] - w_F[i, g]``,
unrolling the aggregation (6) gives::

    Psi[g, g'] = alpha sum_{k' = g .. g'-1} sum_{k <= k'} sum_i X[i, k, k'] (a[i, k] - Psi[k, k'])

The paper's (18) has the opposite sign on the right, which would fit ``w[g'] - w[g]`` on the left.
"""

import numpy as np

from fadelab_server.scheduler.tensors import F64


def model_differences(completed: F64, accumulated: F64, mixing: float) -> F64:
    """Return ``Psi[g, g']`` for all ``g <= g'``, from the schedule and the local gradients alone.

    Args:
        completed: X of one task, shape ``(devices, aggregations, aggregations)``.
        accumulated: ``a[i, g]``, shape ``(devices, aggregations, dimension)``; what belongs to no
            reception does not count.
        mixing: alpha, the same in all aggregations.

    Returns:
        shape ``(aggregations + 1, aggregations + 1, dimension)``; 0 below the diagonal.

    """
    _, aggregations, dimension = accumulated.shape
    psi = np.zeros((aggregations + 1, aggregations + 1, dimension))
    for last in range(aggregations):
        # What aggregation "last" takes from the model; it needs only differences up to "last".
        step = np.einsum("ik,ikd->d", completed[:, :, last], accumulated)
        step -= completed[:, :, last].sum(axis=0) @ psi[:aggregations, last]
        step *= mixing
        psi[: last + 1, last + 1] = psi[: last + 1, last] + step
    return psi
