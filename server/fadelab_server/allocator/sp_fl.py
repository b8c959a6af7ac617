"""SP-FL's allocation: power split, bandwidth and class shares that make the aggregate's error least.

Alternates Newton-Raphson on every device's power split and successive convex approximation on the
bandwidths, as in S. Yue et al., "Prioritizing gradient sign over modulus", arXiv 2603.10763 (the objective is
reconstructed, :mod:`fadelab_server.allocator.sp_fl_error`). The problem is not convex: moduli pay off all
at once or not at all. So the search runs from an equal division by bits and from one that favours signs,
and the better end counts. Where moduli are hopeless their packets end with the least shares: signs only.
"""

from dataclasses import dataclass, replace

import numpy as np

from fadelab_server.allocator.sp_fl_bandwidth import better_band
from fadelab_server.allocator.sp_fl_error import GradientStatistics
from fadelab_server.allocator.sp_fl_link import PacketLinks, Shares, success
from fadelab_server.allocator.sp_fl_newton import best_power, best_time
from fadelab_server.allocator.sp_fl_objective import objective
from fadelab_server.allocator.uplink import F64

_MOST_TURNS = 60
_CLOSE = 1e-7
_SIGNS_FIRST = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class SpFlAllocation:
    """Shares, and what they are predicted to lead to; arrays over devices."""

    shares: Shares
    sign_success: F64
    """Probability that the signs arrive."""
    modulus_success: F64
    """Probability that the moduli arrive, given the signs."""
    objective: float
    """``bias / 2 + L eta var / 2``."""
    iterations: int
    """Alternations, of all starts together."""
    residual: float
    """Relative gain of the last alternation."""


def equal_shares(links: PacketLinks) -> Shares:
    """Return equal bands, and power and band of a device divided by bits."""
    devices = len(links.noise_per_hz)
    by_bits = np.full(devices, links.sign_bits / (links.sign_bits + links.modulus_bits))
    return Shares(by_bits, np.full(devices, 1 / devices), by_bits)


def predict(
    links: PacketLinks,
    statistics: GradientStatistics,
    shares: Shares,
    *,
    iterations: int = 0,
    residual: float = 0.0,
) -> SpFlAllocation:
    """Return what given shares lead to."""
    sign, modulus = success(links, shares)
    return SpFlAllocation(
        shares, sign, modulus, objective(links, statistics, shares), iterations, residual
    )


def sp_fl(
    links: PacketLinks,
    statistics: GradientStatistics,
    *,
    free_class: bool = True,
    start: Shares | None = None,
) -> SpFlAllocation:
    """Return the shares with the least error that the search finds.

    Args:
        links: of all devices.
        statistics: of their gradients.
        free_class: also decide the class shares; otherwise they stay as in the start. With ``parallel``
            access they mean nothing.
        start: an earlier round's shares, from which the search then starts alone; without them it starts
            from :func:`equal_shares` and from nine tenths for signs.

    """
    starts = [start]
    if start is None:
        equal = equal_shares(links)
        most = np.full(len(equal.band), _SIGNS_FIRST)
        starts = [equal, replace(equal, power=most, sign=most if free_class else equal.sign)]
    ends = [_alternate(links, statistics, one, free_class=free_class) for one in starts if one]
    best = min(ends, key=lambda end: end.objective)
    return replace(best, iterations=sum(end.iterations for end in ends))


def _alternate(
    links: PacketLinks, statistics: GradientStatistics, shares: Shares, *, free_class: bool
) -> SpFlAllocation:
    before, turns, gained = objective(links, statistics, shares), 0, np.inf
    while gained > _CLOSE and turns < _MOST_TURNS:
        shares = best_power(links, statistics, shares)
        if free_class and links.access == "tdm":
            shares = best_time(links, statistics, shares)
        shares = better_band(links, statistics, shares, free_class=free_class)
        after = objective(links, statistics, shares)
        gained, before = (before - after) / abs(before), after
        turns += 1
    return predict(links, statistics, shares, iterations=turns, residual=gained)
