"""SP-FL's allocation: the power split, bandwidth and class shares with the least error.

Alternates Newton-Raphson on every device's power split and successive convex approximation on the
bandwidths, as in Yue et al., "Prioritizing gradient sign over modulus", arXiv 2603.10763 (the
objective is reconstructed, :mod:`fadelab_server.allocator.sp_fl_error`). The problem is not convex:
a device's moduli pay off with enough resources or not at all. So the search tries several starts,
in which none, some or all of the devices with the weakest channels send signs almost alone, and
goes on from the best; then it lets the weakest device with moduli give them up, or the strongest
without have some, as long as that helps. Where moduli are hopeless their packets end with the least
shares: signs only.
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
_TURNS_OF_A_TRIAL = 2
_CLOSE = 1e-7
_SIGNS_FIRST = 0.95
_HAS_MODULI = 0.1
# Parts of all devices whose moduli a start gives up.
_GIVEN_UP = (0.0, 0.15, 0.4, 0.7, 1.0)


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
        free_class: also decide the class shares; otherwise they stay as in the start. With
            ``parallel`` access they mean nothing.
        start: an earlier round's shares, which are tried beside the others.

    """
    starts = _starts(links, free_class=free_class) + ([start] if start else [])
    trials = [
        _alternate(links, statistics, one, free_class=free_class, turns=_TURNS_OF_A_TRIAL)
        for one in starts
    ]
    best = min(trials, key=lambda trial: trial.objective)
    end = _alternate(links, statistics, best.shares, free_class=free_class, turns=_MOST_TURNS)
    turns = end.iterations + sum(trial.iterations for trial in trials)
    for _ in range(len(links.noise_per_hz)):
        ways = [
            _alternate(links, statistics, one, free_class=free_class, turns=_TURNS_OF_A_TRIAL + 1)
            for one in _neighbours(links, end, free_class=free_class)
        ]
        turns += sum(way.iterations for way in ways)
        best = min(ways, key=lambda way: way.objective)
        if best.objective > end.objective * (1 - _CLOSE):
            break
        end = _alternate(links, statistics, best.shares, free_class=free_class, turns=_MOST_TURNS)
        turns += end.iterations
    return replace(end, iterations=turns)


def _neighbours(links: PacketLinks, end: SpFlAllocation, *, free_class: bool) -> list[Shares]:
    """Return starts in which one more or one fewer device sends moduli."""
    equal, shares, neighbours = equal_shares(links), end.shares, []
    has = end.modulus_success > _HAS_MODULI
    for changed, strongest in ((has, False), (~has, True)):
        candidates = np.flatnonzero(changed)
        if not len(candidates):
            continue
        noise = links.noise_per_hz[candidates]
        device = candidates[noise.argmin() if strongest else noise.argmax()]
        power, band, sign = shares.power.copy(), shares.band.copy(), shares.sign.copy()
        power[device] = equal.power[device] if strongest else _SIGNS_FIRST
        if free_class:
            sign[device] = equal.sign[device] if strongest else _SIGNS_FIRST
        if strongest:
            band[device] = max(band[device], equal.band[device])
        neighbours.append(Shares(power, band / band.sum(), sign))
    return neighbours


def _starts(links: PacketLinks, *, free_class: bool) -> list[Shares]:
    equal = equal_shares(links)
    weakest_first = np.argsort(-links.noise_per_hz)
    starts = []
    for count in sorted({round(part * len(weakest_first)) for part in _GIVEN_UP}):
        power, sign = equal.power.copy(), equal.sign.copy()
        power[weakest_first[:count]] = _SIGNS_FIRST
        if free_class:
            sign[weakest_first[:count]] = _SIGNS_FIRST
        starts.append(Shares(power, equal.band, sign))
    return starts


def _alternate(
    links: PacketLinks,
    statistics: GradientStatistics,
    shares: Shares,
    *,
    free_class: bool,
    turns: int,
) -> SpFlAllocation:
    before, done, gained = objective(links, statistics, shares), 0, np.inf
    while gained > _CLOSE and done < turns:
        # Bands first: a device that lacks band would give up its moduli at once.
        shares = better_band(links, statistics, shares, free_class=free_class)
        shares = best_power(links, statistics, shares)
        if free_class and links.access == "tdm":
            shares = best_time(links, statistics, shares)
        after = objective(links, statistics, shares)
        gained, before = (before - after) / abs(before), after
        done += 1
    return predict(links, statistics, shares, iterations=done, residual=gained)
