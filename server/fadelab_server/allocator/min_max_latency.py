"""Min-max latency: the power with which the last upload ends as early as possible.

The power control of A. Mahmoudi, E. Bjornson, "Adaptive quantization resolution and power control
for federated learning over cell-free networks", arXiv 2412.10878: for a latency T every device
needs the SINR ``g_k = 2^(b_k / (B T)) - 1``, and the least powers that give it are the fixed point
of::

    p_k = g_k (sum_{k' != k} Bt_kk' p_k' + I_k) / (A_k - g_k Bs_k)

T is feasible if the denominators are positive and the fixed point exists with ``0 < p_k <= 1``;
bisection finds the least. The equations are linear, so the fixed point is solved for instead of
iterated: it exists exactly if the solution is positive (M-matrix).
"""

import numpy as np

from fadelab_server.allocator.round_cost import Allocation, RoundLoad, Senders
from fadelab_server.allocator.uplink import F64, UplinkStatistics

_RESOLUTION = 1e-9
_FIRST_STEP = 1e-3


def min_max_latency(
    statistics: UplinkStatistics, load: RoundLoad, *, start: F64 | None = None
) -> Allocation:
    """Return the powers of the shortest round; all uploads take equally long.

    ``residual`` is the relative width of the interval that holds the least latency; ``iterations``
    counts the latencies that were tried.

    Args:
        statistics: of the uplink.
        load: what is to be sent.
        start: an earlier round's coefficients, from whose latency the search starts.

    """
    senders = Senders.of(statistics, load)
    coefficient, iterations, width = least_latency(senders, senders.start(start))
    return senders.allocation(coefficient, iterations=iterations, residual=width)


def least_latency(senders: Senders, start: F64 | None) -> tuple[F64, int, float]:
    """Return the senders' coefficients, how many latencies were tried, and the interval's width."""
    known = np.ones(len(senders.bits)) if start is None else start
    # A little more than it takes, so that least powers for it exist despite rounding.
    feasible = _log_latency(senders, known) + _RESOLUTION
    least = _fixed_point(senders, float(np.exp(feasible)))
    best = known if least is None else least
    tried, step = 1, _FIRST_STEP
    infeasible = _unreachable(senders)
    # Downwards from what is known, in growing steps, until a latency is too short; then bisection.
    while feasible - infeasible > _RESOLUTION:
        trial = max(feasible - step, (feasible + infeasible) / 2)
        tried += 1
        powers = _fixed_point(senders, float(np.exp(trial)))
        if powers is None:
            infeasible = trial
        else:
            feasible, best = trial, powers
            step *= 8
    return best, tried, feasible - infeasible


def _log_latency(senders: Senders, coefficient: F64) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(senders.bits / senders.statistics.rate_bps(coefficient)).max())


def _unreachable(senders: Senders) -> float:
    """Return ln of a latency that no power reaches: that of full power without the others."""
    statistics = senders.statistics
    alone = statistics.coherent_gain / (statistics.own_interference + statistics.noise)
    rate = statistics.usable_bandwidth_hz / np.log(2) * np.log1p(alone)
    return float(np.log(senders.bits / rate).max())


def _fixed_point(senders: Senders, latency_s: float) -> F64 | None:
    """Return the least powers that meet a latency, None if there are none in [0, 1]."""
    statistics = senders.statistics
    nats = senders.bits * np.log(2) / (statistics.usable_bandwidth_hz * latency_s)
    # Beyond any SINR of this world, and before the exponential overflows.
    if nats.max() > 500:
        return None
    target = np.expm1(nats)
    room = statistics.coherent_gain - target * statistics.own_interference
    if np.any(room <= 0):
        return None
    factor = target / room
    matrix = np.eye(len(target)) - factor[:, None] * statistics.cross_interference
    try:
        powers = np.linalg.solve(matrix, factor * statistics.noise)
    except np.linalg.LinAlgError:
        return None
    return powers if np.all((powers > 0) & (powers <= 1)) else None
