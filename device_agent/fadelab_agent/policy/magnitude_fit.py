"""How fast a vector's magnitudes fall: the power law that MADS's third form needs.

Gradients are compressible: sorted by size, their entries fall about as ``C i^-a``. FedPGT (the
sibling paper of arXiv 2506.07328) finds C and a by a regression of the logarithms over the window
of ranks in which it explains most.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_Numbers = NDArray[np.float64]
_POINTS = 128
"""Ranks that are looked at, evenly spaced by their logarithms."""
_SHORTEST_WINDOW = 0.5
"""Of the points."""
_LEAST_EXPONENT = 0.501
"""A slower fall has no finite sum of squares, which the law's use assumes."""


@dataclass(frozen=True, slots=True)
class MagnitudeFit:
    """``|v_(i)| = scale * i ** -exponent`` for the i-th largest entry, i from 1."""

    scale: float
    exponent: float
    r_squared: float
    """Share of the logarithms' variance that the law explains, in the window that was taken."""


def fit_magnitudes(vector: F32) -> MagnitudeFit | None:
    """Return the law that fits best; None if fewer than four entries are not zero.

    Args:
        vector: shape ``(dimension,)``, in any order and of any sign.

    """
    magnitudes = np.sort(np.abs(vector[vector != 0]).astype(np.float64))[::-1]
    if len(magnitudes) < 4:
        return None
    ranks = np.unique(np.geomspace(1, len(magnitudes), _POINTS).round().astype(np.int64))
    x, y = np.log(ranks), np.log(magnitudes[ranks - 1])
    shortest = max(3, round(_SHORTEST_WINDOW * len(x)))
    step = max(1, (len(x) - shortest) // 8)
    windows = [
        _regress(x[first:last], y[first:last])
        for first in range(0, len(x) - shortest + 1, step)
        for last in range(first + shortest, len(x) + 1, step)
    ]
    return max(windows, key=lambda fit: fit.r_squared)


def _regress(x: _Numbers, y: _Numbers) -> MagnitudeFit:
    centred_x, centred_y = x - x.mean(), y - y.mean()
    spread = float(centred_y @ centred_y)
    slope = float(centred_x @ centred_y) / float(centred_x @ centred_x)
    left = centred_y - slope * centred_x
    exponent = max(-slope, _LEAST_EXPONENT)
    return MagnitudeFit(
        scale=float(np.exp(y.mean() + exponent * x.mean())),
        exponent=exponent,
        r_squared=1 - float(left @ left) / spread if spread > 0 else 0.0,
    )
