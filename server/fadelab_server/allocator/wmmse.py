"""Largest sum rate by weighted minimum mean square errors.

``max_p sum_k log2(1 + SINR_k)`` has no convex form. Q. Shi et al., "An iteratively weighted MMSE
approach to distributed sum-utility maximization", IEEE Trans. Signal Process. 59(9), 2011,
alternate between receiver, weight and power, each in closed form; with ``q = sqrt(p)`` and the
denominators D of the SINRs::

    u_k = sqrt(A_k) q_k / (A_k p_k + D_k),    w_k = 1 / (1 - u_k sqrt(A_k) q_k)
    q_k = min(1, w_k u_k sqrt(A_k) / (w_k u_k^2 (A_k + Bs_k) + sum_{j != k} w_j u_j^2 Bt_jk))

The sum grows with every step; the end is a stationary point, not always the best. It starves
devices that are heard badly: their powers go towards 0, their latencies beyond all bounds, at last
to infinity.
"""

import numpy as np

from fadelab_server.allocator.round_cost import Allocation, RoundLoad, Senders
from fadelab_server.allocator.uplink import F64, UplinkStatistics

_TOLERANCE = 1e-6
_MOST_STEPS = 5000
_NO_POWER = 1e-12
"""Less is none: 120 dB under full power."""


def wmmse(statistics: UplinkStatistics, load: RoundLoad, *, start: F64 | None = None) -> Allocation:
    """Return powers at which no small change makes the sum of rates larger.

    ``residual`` is the largest step in a coefficient by which the gradient of the sum rate, in
    nats, would still move it inside [0, 1].

    Args:
        statistics: of the uplink.
        load: what is to be sent; only who sends matters.
        start: an earlier round's coefficients; without them the search starts from full power. A
            device that was given no power would never get any again, so it starts with a little.

    """
    senders = Senders.of(statistics, load)
    given = senders.start(start)
    power = np.ones(len(senders.index)) if given is None else np.maximum(given, 1e-3)
    terms = _over_noise(senders.statistics)
    iterations, left = 0, _projected_gradient(terms, power)
    while left > _TOLERANCE and iterations < _MOST_STEPS:
        power = _step(terms, power)
        iterations += 1
        left = _projected_gradient(terms, power)
    # Powers that go towards 0 would, some orders later, have rates that no number can hold.
    power[power < _NO_POWER] = 0.0
    return senders.allocation(power, iterations=iterations, residual=left)


def _over_noise(statistics: UplinkStatistics) -> UplinkStatistics:
    """Return the same SINRs with terms in units of the noise, so that weights are comparable."""
    return UplinkStatistics(
        statistics.coherent_gain / statistics.noise,
        statistics.own_interference / statistics.noise,
        statistics.cross_interference / statistics.noise[:, None],
        np.ones(len(statistics.noise)),
        statistics.bandwidth_hz,
        statistics.data_share,
        statistics.full_power_w,
    )


def _step(terms: UplinkStatistics, power: F64) -> F64:
    disturbance = terms.disturbance(power)
    signal = terms.coherent_gain * power
    amplitude = np.sqrt(terms.coherent_gain)
    receiver = amplitude * np.sqrt(power) / (signal + disturbance)
    # 1 - u sqrt(A) q, without the cancellation.
    weight = (signal + disturbance) / disturbance
    cost = weight * receiver**2
    price = cost * (terms.coherent_gain + terms.own_interference) + cost @ terms.cross_interference
    wanted = weight * receiver * amplitude
    # Who had no power is neither wanted nor, if nobody else sends, priced.
    root = np.divide(wanted, price, out=np.zeros_like(price), where=price > 0)
    return np.square(np.minimum(root, 1.0))


def _projected_gradient(terms: UplinkStatistics, power: F64) -> float:
    """Return how far a unit step along the gradient of the sum rate moves inside the bounds."""
    disturbance = terms.disturbance(power)
    sinr = terms.coherent_gain * power / disturbance
    harm = sinr / ((1 + sinr) * disturbance)
    gradient = terms.coherent_gain / (disturbance * (1 + sinr)) - (
        harm * terms.own_interference + harm @ terms.cross_interference
    )
    return float(np.abs(np.clip(power + gradient, 0.0, 1.0) - power).max())
