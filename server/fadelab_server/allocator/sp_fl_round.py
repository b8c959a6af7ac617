"""SP-FL's decision for one round: who sends, with which shares, and what arrives by the formula.

The optimum is that of :mod:`fadelab_server.allocator.sp_fl`; equal shares, the power split alone,
the bandwidth alone, signs before everything, and the best channels alone are baselines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fadelab_server.allocator.sp_fl import equal_shares, predict, sp_fl
from fadelab_server.allocator.sp_fl_bandwidth import better_band
from fadelab_server.allocator.sp_fl_error import GradientStatistics
from fadelab_server.allocator.sp_fl_link import PacketLinks, Shares, success
from fadelab_server.allocator.sp_fl_newton import best_power
from fadelab_server.allocator.sp_fl_objective import objective
from fadelab_server.allocator.uplink import F64
from fadelab_server.sp_fl_config import SpFlConfig

_NEARLY_ALL = 0.99
_ALL = 1 - 1e-9
_MOST_TURNS = 60
_CLOSE = 1e-7
_LEAST_ENERGY = 1e-30


@dataclass(frozen=True, slots=True)
class UpdateFigures:
    """What a device reports of its update, and the server knows of what stands in for its moduli."""

    energy: float
    overlap: float
    quantiser_variance: float
    compensation_energy: float


@dataclass(frozen=True, slots=True, eq=False)
class RoundDecision:
    """Who sends in a round and how; arrays are in the order of ``devices``."""

    devices: tuple[int, ...]
    shares: Shares
    sign_success: F64
    modulus_success: F64
    """Given that the signs arrive."""
    objective: float


def decide_round(
    config: SpFlConfig,
    links: PacketLinks,
    figures: Mapping[int, UpdateFigures],
    *,
    kappa: float,
) -> RoundDecision:
    """Return the round's decision.

    Args:
        config: the method's settings.
        links: of the devices that reported, in the order of their numbers.
        figures: what they reported, by device.
        kappa: how errors of compensation add up.

    """
    devices = sorted(figures)
    chosen = _senders(config, links)
    links = _only(links, chosen)
    senders = [devices[index] for index in chosen]
    statistics = _statistics(config, [figures[device] for device in senders], kappa)
    shares = _shares(config, links, statistics)
    if config.packets == "signs":
        sign, _ = success(links, shares)
        return RoundDecision(tuple(senders), shares, sign, np.zeros_like(sign), 0.0)
    found = predict(links, statistics, shares)
    return RoundDecision(
        tuple(senders), shares, found.sign_success, found.modulus_success, found.objective
    )


def _senders(config: SpFlConfig, links: PacketLinks) -> Sequence[int]:
    """Return the positions of the devices that send."""
    strongest_first = np.argsort(links.noise_per_hz, kind="stable")
    count = max(1, round(config.scheduled * len(strongest_first)))
    chosen = strongest_first[:count]
    if config.allocation in ("power", "bandwidth", "full"):
        signs_alone = _first_signs(equal_shares(links))
        reached = success(links, signs_alone)[0] >= config.least_success
        kept = chosen[reached[chosen]]
        chosen = kept if len(kept) else chosen[:1]
    return sorted(chosen.tolist())


def _only(links: PacketLinks, chosen: Sequence[int]) -> PacketLinks:
    return replace(links, noise_per_hz=links.noise_per_hz[list(chosen)])


def _statistics(
    config: SpFlConfig, figures: Sequence[UpdateFigures], kappa: float
) -> GradientStatistics:
    """Return the figures as the allocator needs them: relative, and within what norms allow."""
    energy = np.array([max(own.energy, _LEAST_ENERGY) for own in figures])
    scale = energy.mean()
    substitute = np.array([own.compensation_energy for own in figures]) / scale
    energy = energy / scale
    # Devices saw a coded copy of the compensation: its error must not exceed Cauchy and Schwarz.
    limit = np.sqrt(energy * substitute)
    overlap = np.clip([own.overlap / scale for own in figures], 0.0, limit)
    variance = np.array([own.quantiser_variance for own in figures]) / scale
    # Moduli of coarse steps may be worse than none. But until some have come, nothing stands in for
    # moduli, signs alone move nothing, and the run would stay where it is for ever.
    variance = np.where(substitute > 0, variance, 0.0)
    return GradientStatistics(energy, substitute, overlap, variance, kappa, config.step)


def _first_signs(equal: Shares, part: float = _NEARLY_ALL) -> Shares:
    most = np.full_like(equal.power, part)
    return replace(equal, power=most, sign=most)


def _shares(config: SpFlConfig, links: PacketLinks, statistics: GradientStatistics) -> Shares:
    equal = equal_shares(links)
    if config.packets == "signs":
        return _first_signs(equal, _ALL)
    match config.allocation:
        case "equal":
            return equal
        case "power":
            return best_power(links, statistics, equal)
        case "bandwidth":
            return _best_band(links, statistics, equal)
        case "signs_first":
            known = np.all(statistics.compensation_energy > 0)
            return _first_signs(equal) if known else equal
        case "full":
            free = config.decides_class_share
            return sp_fl(links, statistics, free_class=free).shares


def _best_band(links: PacketLinks, statistics: GradientStatistics, shares: Shares) -> Shares:
    before = objective(links, statistics, shares)
    for _ in range(_MOST_TURNS):
        shares = better_band(links, statistics, shares, free_class=False)
        after = objective(links, statistics, shares)
        if before - after <= _CLOSE * abs(before):
            break
        before = after
    return shares
