"""Statistics of losses that come in bursts."""

import numpy as np
from numpy.typing import NDArray


def burst_lengths(lost: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many packets each uninterrupted row of losses holds."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], lost, [False])).astype(np.int8)))
    return edges[1::2] - edges[::2]


def geometric_chi_square(lengths: NDArray[np.int64], leave: float) -> tuple[float, int]:
    """Hold lengths against P(n) = (1 - leave)^(n - 1) leave; return the statistic and the bins.

    Bins are about equally likely, at most twenty of them.
    """
    survivors = np.linspace(1.0, 0.0, 21)[1:-1]
    ends = np.unique(np.ceil(np.log(survivors) / np.log1p(-leave)))
    beyond = np.concatenate(([1.0], (1 - leave) ** ends, [0.0]))
    expected = len(lengths) * -np.diff(beyond)
    found = np.histogram(lengths, np.concatenate(([0.5], ends + 0.5, [np.inf])))[0]
    return float(((found - expected) ** 2 / expected).sum()), len(expected)


def chi_square_bound(freedom: int, deviations: float) -> float:
    """Return the quantile that lies ``deviations`` above the mean (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + deviations * spread**0.5) ** 3)


def burst_share_deviation(to_bad: float, to_good: float, packets: int) -> float:
    """Return the standard deviation of the share lost where the bad state loses all, the good
    none: a two-state chain whose neighbours have the correlation 1 - to_bad - to_good."""
    share = to_bad / (to_bad + to_good)
    alike = 1 - to_bad - to_good
    return float(np.sqrt(share * (1 - share) * (1 + alike) / (1 - alike) / packets))
