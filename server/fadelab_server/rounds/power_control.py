"""The power controls by name."""

from dataclasses import dataclass, replace

import numpy as np

from fadelab_server.allocator.convex_program import load_solvers
from fadelab_server.allocator.coordinate_descent import coordinate_descent
from fadelab_server.allocator.dinkelbach import dinkelbach
from fadelab_server.allocator.full_power import full_power
from fadelab_server.allocator.min_max_latency import min_max_latency
from fadelab_server.allocator.round_cost import Allocation, CostWeights, RoundLoad
from fadelab_server.allocator.sqp_budget import sqp_budget
from fadelab_server.allocator.sqp_weighted import sqp_weighted
from fadelab_server.allocator.uplink import F64, UplinkStatistics
from fadelab_server.allocator.wmmse import wmmse
from fadelab_server.rounds.config import (
    CoordinateDescentConfig,
    DinkelbachConfig,
    FullPowerConfig,
    MinMaxConfig,
    PowerControlConfig,
    SqpBudgetConfig,
    SqpWeightedConfig,
    WmmseConfig,
)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of the budgets; infinite where there is none."""

    energy_j: float
    latency_s: float


def prepare(config: PowerControlConfig) -> None:
    """Load what a power control needs, which the first round would otherwise wait for."""
    if isinstance(config, SqpBudgetConfig | SqpWeightedConfig | DinkelbachConfig):
        load_solvers()


def decide_powers(
    config: PowerControlConfig,
    statistics: UplinkStatistics,
    load: RoundLoad,
    *,
    left: Left,
    start: F64 | None,
) -> Allocation:
    """Return the coefficients that a power control chooses for a round.

    Args:
        config: which power control.
        statistics: of the uplink.
        load: what is to be sent.
        left: of the budgets; only ``sqp_budget`` looks at them.
        start: an earlier round's coefficients.

    Raises:
        ValueError: nobody has anything to send that could be heard.

    """
    match config:
        case SqpBudgetConfig():
            return sqp_budget(
                statistics, load, energy_j=left.energy_j, latency_s=left.latency_s, start=start
            )
        case SqpWeightedConfig() | CoordinateDescentConfig():
            weights = CostWeights(config.energy_weight, config.latency_weight)
            by_sqp = isinstance(config, SqpWeightedConfig)
            solve = sqp_weighted if by_sqp else coordinate_descent
            return solve(statistics, load, weights=weights, start=start)
        case DinkelbachConfig(radiated_per_w=radiated_per_w, constant=constant):
            return dinkelbach(
                statistics, load, radiated_per_w=radiated_per_w, constant=constant, start=start
            )
        case MinMaxConfig():
            return min_max_latency(statistics, load, start=start)
        case WmmseConfig():
            return wmmse(statistics, load, start=start)
        case FullPowerConfig():
            return full_power(statistics, load)


def decide_round(
    config: PowerControlConfig,
    statistics: UplinkStatistics,
    load: RoundLoad,
    *,
    left: Left,
    start: F64 | None,
) -> Allocation:
    """Do as :func:`decide_powers` in a round of which nothing else is known than its load.

    Nobody needs to have anything to send, and any earlier round's coefficients will do as ``start``.

    Raises:
        ValueError: likewise.

    """
    silent = np.zeros(len(load.bits))
    if not np.any(load.bits):
        return Allocation(silent, silent, silent, silent, load.compute_s, load.compute_j, 0, 0)
    # A search cannot begin with a power of 0 for somebody who has something to send now.
    if start is not None and np.any((start == 0) & (load.bits > 0)):
        start = None
    return decide_powers(config, statistics, load, left=left, start=start)


def on_links(
    allocation: Allocation, load: RoundLoad, floor_bps: float, powers_w: F64
) -> Allocation:
    """Return what an allocation comes to on links that are never slower than their floor.

    Who gets no power uploads nothing, in no time.
    """
    rate_bps = np.maximum(allocation.rate_bps, floor_bps)
    upload_s = np.where(powers_w > 0, load.bits / rate_bps, 0.0)
    upload_j = powers_w * upload_s
    return replace(
        allocation,
        rate_bps=rate_bps,
        upload_s=upload_s,
        upload_j=upload_j,
        round_s=float(upload_s.max()) + load.compute_s,
        round_j=float(upload_j.sum()) + load.compute_j,
    )
