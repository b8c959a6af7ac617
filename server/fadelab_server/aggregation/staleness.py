"""Staleness weights of FedAsync (Xie et al., arXiv 1903.03934, section 5.2).

``s`` maps the staleness in versions to a factor in (0, 1].
"""

from collections.abc import Callable

from fadelab_server.config import (
    ConstantStaleness,
    HingeStaleness,
    PolynomialStaleness,
    StalenessConfig,
)

StalenessWeight = Callable[[int], float]


def staleness_weight(config: StalenessConfig) -> StalenessWeight:
    """Return the weight function that ``config`` describes."""
    match config:
        case ConstantStaleness():
            return lambda _: 1.0
        case PolynomialStaleness(exponent=exponent):
            return lambda staleness: (staleness + 1.0) ** -exponent
        case HingeStaleness(slope=slope, threshold=threshold):
            return lambda staleness: 1.0 / (slope * max(0, staleness - threshold) + 1.0)


def too_stale(staleness: int, most: int | None) -> str | None:
    """Return why an update of that staleness is not taken, or None if it is."""
    if most is None or staleness <= most:
        return None
    return f"the update is {staleness} versions stale; at most {most} are taken"
