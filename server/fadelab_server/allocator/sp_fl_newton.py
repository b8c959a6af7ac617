"""Power split (and the split of time) of every device by Newton-Raphson.

Given its band, a device's part of the objective depends on its own split alone; all devices are
solved at once. The start is the best point of a grid. Newton's iteration on the derivative is kept
inside the grid's neighbouring points by bisection, which also finds the kink that a common fade
brings about.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fadelab_server.allocator.sp_fl_error import GradientStatistics
from fadelab_server.allocator.sp_fl_link import (
    PacketLinks,
    Shares,
    losses,
    modulus_outage,
    sign_outage,
)
from fadelab_server.allocator.sp_fl_objective import by_losses
from fadelab_server.allocator.uplink import F64

LEAST_SHARE = 0.01
"""Neither packet gets less of the power or of the time."""
_GRID = np.linspace(LEAST_SHARE, 1 - LEAST_SHARE, 50)
_MOST_STEPS = 40
_RESOLUTION = 1e-7
_DIFFERENCE = 1e-6
_SIDES = np.array([[-1.0], [1.0]])

Sloped = Callable[[F64], tuple[F64, F64]]
"""Values and derivatives at splits of shape ``(..., devices)``."""


def best_power(links: PacketLinks, statistics: GradientStatistics, shares: Shares) -> Shares:
    """Return the shares with the best power split for their bands."""
    sign, modulus = sign_outage(links, shares).cost, modulus_outage(links, shares).cost

    def sloped(alpha: F64) -> tuple[F64, F64]:
        parts = by_losses(links, statistics, sign / alpha, modulus / (1 - alpha))
        slope = (
            parts.by_modulus_loss * modulus / (1 - alpha) ** 2
            - parts.by_sign_loss * sign / alpha**2
        )
        return parts.value, slope

    return replace(shares, power=_minimise(sloped, shares.power))


def best_time(links: PacketLinks, statistics: GradientStatistics, shares: Shares) -> Shares:
    """Return the shares with the best split of time (``tdm``) for their bands and powers."""

    def value(nu: F64) -> F64:
        tried = replace(shares, sign=nu)
        return by_losses(links, statistics, *losses(links, tried)).value

    def sloped(nu: F64) -> tuple[F64, F64]:
        rise = value(nu + _DIFFERENCE) - value(nu - _DIFFERENCE)
        return value(nu), rise / (2 * _DIFFERENCE)

    return replace(shares, sign=_minimise(sloped, shares.sign))


def _minimise(sloped: Sloped, present: F64) -> F64:
    """Return every device's best split, never one that is worse than the present."""
    devices = len(present)
    grid = np.repeat(_GRID[:, None], devices, axis=1)
    best = sloped(grid)[0].argmin(axis=0)
    low = _GRID[np.maximum(best - 1, 0)]
    high = _GRID[np.minimum(best + 1, len(_GRID) - 1)]
    point = _GRID[best]
    _, slope = sloped(point)
    # At the end of the range, with everything better beyond it, there is nothing to search.
    low = np.where((best == len(_GRID) - 1) & (slope < 0), point, low)
    high = np.where((best == 0) & (slope > 0), point, high)
    for _ in range(_MOST_STEPS):
        low, high = np.where(slope < 0, point, low), np.where(slope < 0, high, point)
        if np.all(high - low < _RESOLUTION):
            break
        around = np.clip(point + _DIFFERENCE * _SIDES, LEAST_SHARE, 1 - LEAST_SHARE)
        curvature = np.diff(sloped(around)[1], axis=0)[0] / np.diff(around, axis=0)[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = point - slope / curvature
        inside = (newton > low) & (newton < high) & (curvature > 0)
        following = np.where(inside, newton, (low + high) / 2)
        moved = np.abs(following - point).max()
        point = following
        if moved < _RESOLUTION:
            break
        _, slope = sloped(point)
    return np.where(sloped(point)[0] <= sloped(present)[0], point, present)
